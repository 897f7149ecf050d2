//! The tables of this room. Released steps never change; see `docs/formats/state.md`.

/// Migration steps, oldest first.
pub(crate) const SCHEMA: &[&str] = &["
    -- One row per snapshot. `dir` is the number below snapshots/, NULL while a layer is lazy and for merges.
    -- `stack` lists the directories of a merge or diff, bottom first, once it can be mounted.
    -- `boot` is the boot that wrote the files until they are known to be on disk. Times are milliseconds.
    CREATE TABLE snapshots (
        id TEXT PRIMARY KEY,
        shape TEXT NOT NULL CHECK (shape IN ('layer', 'merge', 'diff', 'mutable')),
        dir INTEGER UNIQUE,
        stack TEXT,
        kind TEXT NOT NULL,
        description TEXT NOT NULL,
        created INTEGER NOT NULL,
        last_used INTEGER,
        usage_count INTEGER NOT NULL DEFAULT 0,
        size INTEGER,
        marks INTEGER,
        chain_id TEXT UNIQUE,
        diff_id TEXT,
        boot INTEGER
    ) STRICT;
    -- Parents by position; of a diff, position 0 is the lower and 1 the upper side.
    CREATE TABLE snapshot_parents (
        id TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        parent TEXT NOT NULL REFERENCES snapshots (id),
        PRIMARY KEY (id, position)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX snapshot_parents_parent ON snapshot_parents (parent);
    -- Names under which sources and cache mounts find their snapshots again.
    CREATE TABLE snapshot_keys (
        key TEXT NOT NULL,
        id TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
        PRIMARY KEY (key, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX snapshot_keys_id ON snapshot_keys (id);
    -- Blobs that are known to hold a layer. `descriptor` is the OCI descriptor as JSON.
    CREATE TABLE snapshot_blobs (
        id TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
        digest TEXT NOT NULL,
        variant TEXT NOT NULL,
        descriptor TEXT NOT NULL,
        PRIMARY KEY (id, digest)
    ) STRICT, WITHOUT ROWID;
    -- Directories made for mounting (adapted or collapsed layers); they go with their owner.
    CREATE TABLE snapshot_dirs (
        dir INTEGER PRIMARY KEY,
        owner TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
        purpose TEXT NOT NULL
    ) STRICT;
    CREATE INDEX snapshot_dirs_owner ON snapshot_dirs (owner);
"];
