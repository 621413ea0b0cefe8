-- Which gateways have had a PIN rejected by which card since its last good login. That it was rejected, not what it was: not even a hash of
-- it, for a PIN is short enough to be found from any hash whose key is known.

CREATE TABLE pin_rejections (
    card text COLLATE "C" NOT NULL,
    gateway uuid NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (card, gateway)
);
