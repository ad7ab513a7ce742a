-- The truth. Rows are immutable: an update files the old row under `versions` and inserts a new one with a new seq, so nothing
-- updates keys and an index entry never changes its meaning. Primary keys only; integrity is the writer's.

CREATE TABLE meta (
    key VARCHAR PRIMARY KEY,            -- database_id, schema_version, embedder, dimension
    value VARCHAR NOT NULL
);

CREATE TABLE state (
    commit_seq BIGINT NOT NULL          -- one row: the number of the last committed transaction
);

CREATE TABLE sessions (
    code INTEGER PRIMARY KEY,           -- never reused
    session VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL
);

CREATE TABLE memories (
    seq BIGINT PRIMARY KEY,             -- global, ascending, never reused
    id VARCHAR NOT NULL,                -- what callers hold; survives updates; begins with the seq it was first stored under
    session INTEGER NOT NULL,
    layer VARCHAR NOT NULL,             -- episodic | semantic
    kind VARCHAR NOT NULL,              -- event | fact | principle | concept
    content VARCHAR NOT NULL,
    tags VARCHAR[] NOT NULL,            -- tags of an event, topics of a fact
    attributes VARCHAR NOT NULL,        -- JSON: an event's context, a fact's subject, predicate and object
    source VARCHAR,
    confidence DOUBLE NOT NULL,
    occurred_at TIMESTAMP NOT NULL,     -- UTC, as all times
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP,
    version INTEGER NOT NULL,
    vector BLOB NOT NULL                -- dimension x little-endian float32, unit length; a BLOB loads 1.4 x as fast as FLOAT[384]
);

CREATE TABLE versions AS SELECT * FROM memories LIMIT 0;

CREATE TABLE idempotency (
    session INTEGER NOT NULL,
    operation VARCHAR NOT NULL,
    key VARCHAR NOT NULL,
    digest VARCHAR NOT NULL,            -- of the parameters: the same key with another body is refused
    result VARCHAR NOT NULL,            -- JSON of the answer
    created_at TIMESTAMP NOT NULL,
    PRIMARY KEY (session, operation, key)
);
