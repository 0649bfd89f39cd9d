-- The content repository: files that users upload, cached files of other servers, and thumbnails.

-- One row for each `mxc://` URI. `server_name` is the server that has the file; `sha256` and `size` are
-- those of its content, which is stored once under its hash however many rows name it. The number of
-- these rows is the reference count of the content.
--
-- Without `sha256` the file has not been uploaded yet, and may be until `expires_at` (ms); of another
-- server's file it says that only its quarantine is known. `used_at` (ms) is the last use, to within an
-- hour. `is_public` files can be downloaded without an access token at the deprecated endpoints.
CREATE TABLE media (
    server_name    text,
    media_id       text,
    uploader       text,
    created_at     bigint  NOT NULL,
    expires_at     bigint,
    used_at        bigint  NOT NULL,
    sha256         bytea,
    size           bigint,
    content_type   text,
    filename       text,
    is_public      boolean NOT NULL,
    is_quarantined boolean NOT NULL DEFAULT false,
    PRIMARY KEY (server_name, media_id)
);

CREATE INDEX media_by_content ON media (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX media_by_uploader ON media (uploader, created_at) WHERE uploader IS NOT NULL;
CREATE INDEX media_of_others_by_use ON media (used_at) WHERE uploader IS NULL AND sha256 IS NOT NULL;
CREATE INDEX media_not_uploaded ON media (expires_at) WHERE expires_at IS NOT NULL;

-- What each user has stored. It is changed in the statements that add and delete rows of `media`.
CREATE TABLE media_usage (
    uploader text   PRIMARY KEY,
    files    bigint NOT NULL,
    bytes    bigint NOT NULL
);

-- Content that may not be served, under whatever URI it is or will be stored.
CREATE TABLE quarantined_content (
    sha256         bytea  PRIMARY KEY,
    quarantined_at bigint NOT NULL
);

-- `source` and `sha256` are the hashes of a content and of its thumbnail.
CREATE TABLE thumbnails (
    source       bytea,
    width        integer,
    height       integer,
    method       text,
    is_animated  boolean,
    sha256       bytea  NOT NULL,
    size         bigint NOT NULL,
    content_type text   NOT NULL,
    PRIMARY KEY (source, width, height, method, is_animated)
);

CREATE INDEX thumbnails_by_content ON thumbnails (sha256);
