-- How candidates of each kind fared, over all orders that closed; old ones fade as new ones come.
CREATE TABLE publisher.pass_rates (
    asset_type text NOT NULL,
    quality text NOT NULL,
    model text NOT NULL,
    passes double precision NOT NULL,
    fails double precision NOT NULL,
    PRIMARY KEY (asset_type, quality, model)
);
