-- Previews of web pages, as they were when they were fetched.

-- `url_hash` is the SHA-256 of the URL: a URL may be longer than an entry of an index. `preview` is the
-- JSON object for clients; its picture, if it has one, is the file `media_id` of this server.
-- From `fetched_at` to `expires_at` (ms) a preview counts as the present one; later only for
-- requests that ask for the preview of that time.
CREATE TABLE url_previews (
    url_hash   bytea,
    fetched_at bigint,
    expires_at bigint NOT NULL,
    preview    bytea  NOT NULL,
    media_id   text,
    PRIMARY KEY (url_hash, fetched_at)
);

CREATE INDEX url_previews_by_age ON url_previews (fetched_at);
