-- GET /v1/assets?request_id=: the link that every request shows.
CREATE INDEX assets_of_request ON publisher.assets (tenant, request_id);
