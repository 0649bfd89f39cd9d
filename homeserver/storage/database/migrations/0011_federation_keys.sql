-- Federation: the signing keys of other servers, and how each server fares that we send to.
--
-- A key outlives the server that it belongs to, as the events that were signed with it do, so rows of
-- `server_keys` are never deleted. `valid_until_ts` is the end of the key's validity in milliseconds
-- since the epoch: for a current key what its server promised, but at most seven days after it was
-- fetched; for an old one when the server stopped using it. `response` is the signed answer that told
-- of the key, which notaries pass on, and `response_valid_until_ts` what it says of itself: an answer
-- that is older than the one at hand never replaces it.
--
-- `destinations` has times in seconds since the epoch, as the clock counts them.

CREATE TABLE server_keys (
    server_name             text   NOT NULL,
    key_id                  text   NOT NULL,
    verify_key              text   NOT NULL,
    valid_until_ts          bigint NOT NULL,
    is_old                  bool   NOT NULL,
    response                bytea  NOT NULL,
    response_valid_until_ts bigint NOT NULL,
    fetched_ts              bigint NOT NULL,
    PRIMARY KEY (server_name, key_id)
);

CREATE TABLE destinations (
    server_name  text   PRIMARY KEY,
    failures     int    NOT NULL,
    failed_at    float8 NOT NULL,
    retry_at     float8 NOT NULL,
    succeeded_at float8
);
