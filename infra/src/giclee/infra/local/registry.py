"""The schema registry, only when asked for: Apicurio, which speaks Confluent's API."""

from __future__ import annotations

import http.client
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from giclee.infra.local.cache import cache_dir, fetched
from giclee.infra.local.child import Launch
from giclee.infra.local.kafka import java
from giclee.infra.local.part import KeepOn
from giclee.infra.local.ports import Ports

APICURIO = "io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all"
_JAR = "apicurio-registry-app-2.6.13.Final-runner.jar"
_API = "/apis/ccompat/v7"


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry of one stack."""

    folder: Path
    log: Path
    ports: Ports
    name: str = "registry"

    @property
    def url(self) -> str:
        return f"http://{self.ports.client_host}:{self.ports.of('registry')}{_API}"

    def prepare(self, keep_on: KeepOn) -> None:
        """Download and unpack once per machine."""
        self.folder.mkdir(parents=True, exist_ok=True)
        goal = ("dependency:copy", f"-Dartifact={APICURIO}", "-DoutputDirectory={out}", "-Dmdep.useBaseVersion=true")
        packed = fetched(cache_dir() / "apicurio-2.6.13", goal, log=self.log, what="the registry", keep_on=keep_on)
        unpacked = self._home()
        if (unpacked / _JAR).exists():
            return
        partial = Path(f"{unpacked}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        with tarfile.open(next(packed.glob("*.tar.gz"))) as archive:
            archive.extractall(partial, filter="data")
        shutil.rmtree(unpacked, ignore_errors=True)
        partial.rename(unpacked)

    def launch(self) -> Launch:
        listen = (f"-Dquarkus.http.port={self.ports.of('registry')}", f"-Dquarkus.http.host={self.ports.host}")
        # on disk: records on topics name schemas by number, which must mean the same after a restart
        keep = {"REGISTRY_DATASOURCE_URL": f"jdbc:h2:file:{self.folder / 'schemas'}"}
        argv = (java(), "-Xmx384m", "-XX:+UseSerialGC", "-XX:-UsePerfData", *listen, "-jar", _JAR)
        return Launch(argv=argv, env=keep, log=self.log, cwd=self._home(), grace_s=10)

    def trouble(self) -> str | None:
        connection = http.client.HTTPConnection(self.ports.client_host, self.ports.of("registry"), timeout=1.0)
        try:
            connection.request("GET", f"{_API}/subjects")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"no answer on {self.url} ({error})"
        finally:
            connection.close()
        return None if status == 200 else f"{self.url}/subjects answers {status}"

    def stopped(self, exit_code: int) -> None:
        """Nothing to keep."""

    def _home(self) -> Path:
        return cache_dir() / "apicurio-2.6.13" / "app"
