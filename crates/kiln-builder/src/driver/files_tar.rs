//! Files of a daemon's configuration as an archive for `/etc`.

use std::collections::BTreeSet;

use kiln_fs::tar::{Entry, EntryKind, Writer};

use crate::Error;

/// An archive of `buildkit/<name>` for each file, with the directories above them.
pub(super) fn archive<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Vec<u8>, Error> {
    let failed = |e: kiln_fs::tar::TarError| Error::Invalid(format!("archive of the configuration: {e}"));
    let mut entries = Vec::new();
    let mut dirs = BTreeSet::new();
    for (name, data) in files {
        let valid = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']);
        if !name.split('/').all(valid) {
            return Err(Error::Invalid(format!("invalid config file path {name:?}")));
        }
        let path = format!("buildkit/{name}");
        dirs.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
        entries.push((path, data));
    }
    if let Some((path, _)) = entries.iter().find(|(path, _)| dirs.contains(path)) {
        return Err(Error::Invalid(format!("config file path {path:?} conflicts with directory")));
    }
    let mut writer = Writer::new(Vec::new());
    for dir in dirs {
        let mut entry = Entry::new(format!("{dir}/"), EntryKind::Dir);
        entry.mode = 0o755;
        writer.append_empty(&entry).map_err(failed)?;
    }
    for (path, data) in entries {
        let mut entry = Entry::new(path, EntryKind::File);
        (entry.mode, entry.size) = (0o644, data.len() as u64);
        writer.append(&entry, data).map_err(failed)?;
    }
    writer.finish().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_fs::tar::Reader;

    #[test]
    fn directories_come_before_their_files() {
        let files = [("certs/r/ca.pem", &b"x"[..]), ("buildkitd.toml", b"yy")];
        let archive = archive(files.into_iter()).unwrap();
        let mut reader = Reader::new(&archive[..]);
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push(format!("{} {:o}", entry.path.display(), entry.mode));
        }
        assert_eq!(
            names,
            [
                "buildkit/ 755",
                "buildkit/certs/ 755",
                "buildkit/certs/r/ 755",
                "buildkit/certs/r/ca.pem 644",
                "buildkit/buildkitd.toml 644"
            ]
        );
    }

    #[test]
    fn names_do_not_leave_the_directory() {
        for name in ["../x", "a/../../x", "/x", "a//b", "a\\b", ""] {
            assert!(archive([(name, &b""[..])].into_iter()).is_err(), "{name:?}");
        }
        let clash = [("a", &b""[..]), ("a/b", b"")];
        assert!(archive(clash.into_iter()).unwrap_err().to_string().contains("conflicts with directory"));
    }
}
