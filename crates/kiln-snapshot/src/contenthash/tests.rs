//! Digests marked with a constant were computed with the reference implementation.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use kiln_digest::Digest;
use kiln_fs::Root;
use tempfile::TempDir;

use super::{ChecksumOpts, FileHasher, FileHeader, HashTree, checksum, checksum_of_nothing};
use crate::SnapshotError;

const FILE_DATA0: &str = "cd8e75bca50f2d695f220d0cb0997d8ead387e4f926e8669a92d7f104cc9885b";
const FILE_DATA1: &str = "c2b5e234f5f38fc5864da7def04782f82501a40d46192e4207d5b3f0c3c4732b";
const FILE_DATA2: &str = "1c67653c3cf95b12a0014e2c4cd1d776b474b3218aee54155d6ae27b9b999c54";
const DIR_D0: &str = "d47454417d2c554067fbefe5f5719edc49f3cfe969c36b62e34a187a4da0cc9a";
const DIR_D0_WITHOUT_GHI: &str = "555ffa3028630d97ba37832b749eda85ab676fd64ffb629fbf0f4ec8c1e3bff1";
const DOUBLE_STAR: &str = "aa7448215bbf5b837b35ce64467857d8b9747965573d14d4b31b370586370971";
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A filesystem made of lines: `path`, then `dir`, `file <content>`, `link <target>` or `hard <path>`.
struct Tree {
    _dir: TempDir,
    root: Root,
    hashes: HashTree,
}

impl Tree {
    fn new(lines: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let path = dir.path().join(words[0]);
            let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match words[1] {
                "dir" => {
                    fs::create_dir(&path).unwrap();
                    mode(0o755);
                }
                "file" => {
                    fs::write(&path, words.get(2).copied().unwrap_or_default()).unwrap();
                    mode(0o644);
                }
                "link" => symlink(words[2], &path).unwrap(),
                "hard" => fs::hard_link(dir.path().join(words[2]), &path).unwrap(),
                other => panic!("{other}"),
            }
        }
        let root = Root::open(dir.path()).unwrap();
        Self { _dir: dir, root, hashes: HashTree::new() }
    }

    fn try_sum(&mut self, path: &str, opts: &ChecksumOpts) -> Result<Digest, SnapshotError> {
        let sum = checksum(&self.root, &mut self.hashes, path, opts)?;
        // The same again from what is remembered, and from what is remembered on disk.
        assert_eq!(checksum(&self.root, &mut self.hashes, path, opts).unwrap(), sum);
        let mut loaded = HashTree::from_bytes(&self.hashes.to_bytes()).unwrap();
        let empty = TempDir::new().unwrap();
        let nothing = Root::open(empty.path()).unwrap();
        assert_eq!(checksum(&nothing, &mut loaded, path, opts).unwrap(), sum, "nothing is read again");
        Ok(sum)
    }

    fn sum(&mut self, path: &str, opts: &ChecksumOpts) -> String {
        self.try_sum(path, opts).unwrap().hex()
    }

    fn not_found(&mut self, path: &str, opts: &ChecksumOpts) {
        let error = self.try_sum(path, opts).unwrap_err();
        assert!(matches!(error, SnapshotError::PathNotFound(_)), "{error}");
    }
}

/// The digests count owner and group, so the files must be root's.
fn root_user() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: not root");
    }
    root
}

fn plain() -> ChecksumOpts {
    ChecksumOpts::default()
}

fn follow() -> ChecksumOpts {
    ChecksumOpts { follow_links: true, ..plain() }
}

fn wildcard() -> ChecksumOpts {
    ChecksumOpts { wildcard: true, ..plain() }
}

fn follow_wildcard() -> ChecksumOpts {
    ChecksumOpts { wildcard: true, ..follow() }
}

fn include(patterns: &[&str], wildcard: bool) -> ChecksumOpts {
    ChecksumOpts { wildcard, include: patterns.iter().map(ToString::to_string).collect(), ..plain() }
}

#[test]
fn files_and_directories_root() {
    if !root_user() {
        return;
    }
    let mut tree = Tree::new(&[
        "foo file data0",
        "bar file data1",
        "d0 dir",
        "d0/abc file data0",
        "d0/def link abc",
        "d0/ghi link nosuchfile",
    ]);
    tree.not_found("nosuch", &follow());
    let error = tree.try_sum("nosuch", &follow()).unwrap_err();
    assert_eq!(error.to_string(), "\"/nosuch\": not found");
    assert_eq!(tree.sum("foo", &follow()), FILE_DATA0);
    assert_eq!(tree.sum("/./bar", &follow()), FILE_DATA1);
    assert_eq!(tree.sum("d0/abc", &follow()), FILE_DATA0);
    assert_eq!(tree.sum("d0/def", &follow()), FILE_DATA0);
    tree.not_found("d0/ghi", &follow());
    tree.not_found("foo/below", &follow());
    let whole = "427c9cf9ae98c0f81fb57a3076b965c7c149b6b0a85625ad4e884236649a42c6";
    assert_eq!(tree.sum("/", &follow()), whole);
    assert_eq!(tree.sum("", &follow()), whole);
    assert_eq!(tree.sum("d0", &follow()), DIR_D0);
    assert_eq!(tree.sum("d0/", &follow()), DIR_D0);
    let mut same = Tree::new(&["abc file data0", "def link abc", "ghi link nosuchfile"]);
    assert_eq!(same.sum("/", &follow()), DIR_D0);
    let mut less = Tree::new(&["abc file data0", "def link abc"]);
    assert_eq!(less.sum("/", &follow()), DIR_D0_WITHOUT_GHI);
    let mut nested = Tree::new(&["abc dir", "abc/aa dir", "abc/aa/foo file data2"]);
    assert_eq!(nested.sum("abc/aa/foo", &follow()), FILE_DATA2);
}

#[test]
fn links_are_resolved_on_the_way_root() {
    if !root_user() {
        return;
    }
    let mut tree = Tree::new(&[
        "target dir",
        "target/file file data0",
        "link1 dir",
        "link1/target_file link ../target/file",
        "link1/target_file_abs link /target/file",
        "link1/target_dir link ../target",
        "link1/target_dir_abs link /target",
        "link2 dir",
        "link2/link1_rel link ../link1",
        "link2/link1_abs link /link1",
        "link3 dir",
        "link3/target link ../link2/link1_rel/target_dir",
        "link3/target_file link ../link2/link1_rel/target_file",
        "slash link /target/",
        "dot link /target/.",
        "up link /target/../target",
        "above link ../../../target",
        "root link /",
    ]);
    for path in [
        "target/file",
        "link1/target_dir/file",
        "link2/link1_rel/target_dir/file",
        "link2/link1_rel/target_dir_abs/file",
        "link2/link1_abs/target_dir/file",
        "link2/link1_abs/target_dir_abs/file",
        "link3/target/file",
        "slash/file",
        "dot/file",
        "up/file",
        "above/file",
        "root/root/slash/file",
    ] {
        assert_eq!(tree.sum(path, &plain()), FILE_DATA0, "{path}");
        assert_eq!(tree.sum(path, &follow()), FILE_DATA0, "{path}");
    }
    for path in ["link1/target_file", "link2/link1_abs/target_file_abs", "link3/target_file"] {
        assert_eq!(tree.sum(path, &follow()), FILE_DATA0, "{path}");
        assert_ne!(tree.sum(path, &plain()), FILE_DATA0, "{path}");
    }
    assert_eq!(tree.sum("link2/link1_rel/target_file", &plain()), tree.sum("link1/target_file", &plain()));
    let mut lazy = Tree::new(&["aa dir", "aa/bb dir", "aa/bb/dd file data0", "aa/ln link /aa"]);
    assert_eq!(lazy.sum("aa/ln/bb/dd", &follow()), FILE_DATA0);
}

#[test]
fn endless_links_are_an_error() {
    let mut tree = Tree::new(&["a link b", "b link a", "c link c/c"]);
    for path in ["a", "b/x", "c"] {
        let error = tree.try_sum(path, &follow()).unwrap_err();
        assert!(matches!(error, SnapshotError::TooManyLinks(_)), "{error}");
    }
}

#[test]
fn links_that_are_not_followed_root() {
    if !root_user() {
        return;
    }
    let mut tree = Tree::new(&[
        "target file data0",
        "sym link target",
        "sym2 link target2",
        "foo dir",
        "foo/ghi link target",
        "y1 link foo/ghi",
    ]);
    let link = "a2ba571981f48ec34eb79c9a3ab091b6491e825c2f7e9914ea86e8e958be7fae";
    for path in ["sym", "foo/ghi"] {
        assert_eq!(tree.sum(path, &wildcard()), link);
        assert_eq!(tree.sum(path, &plain()), link);
    }
    assert_ne!(tree.sum("sym2", &wildcard()), link);
    tree.not_found("foo/ghi", &follow_wildcard());
    tree.not_found("y1", &follow_wildcard());
    let directory = "9b761577efcb1239cf4be971914c5d7404914dd32ff436401af1764dc5446b83";
    assert_eq!(tree.sum("foo", &follow()), directory);
    let exclude = ChecksumOpts { exclude: vec!["*.git".into()], ..follow() };
    assert_eq!(tree.sum("foo", &exclude), directory, "an exclusion that hits nothing changes nothing");
    let by_wildcard = "2797e710c6d1a89ff2d91c834b828b1dc500f2982430a58241df8e146f4c4bb4";
    assert_eq!(tree.sum("fo?", &follow_wildcard()), by_wildcard);
}

#[test]
fn an_exclusion_without_effect_changes_nothing_root() {
    if !root_user() {
        return;
    }
    let mut tree = Tree::new(&["test dir", "test/foo file data0"]);
    let expected = "8f36dfd60011a21345427f4d3177b1223e11fbb732c18dd07cd8b2a27a0b53ca";
    assert_eq!(tree.sum("test", &plain()), expected);
    assert_eq!(tree.sum("test", &ChecksumOpts { exclude: vec!["*.git".into()], ..plain() }), expected);
}

#[test]
fn wildcards_root() {
    if !root_user() {
        return;
    }
    let mut tree = Tree::new(&[
        "bar file data1",
        "foo file data0",
        "fox file data2",
        "x dir",
        "x/d0 dir",
        "x/d0/abc file data0",
        "x/d0/def link abc",
        "x/d0/ghi link nosuchfile",
        "y1 link foo",
        "y2 link fox",
    ]);
    let one = Digest::sha256(format!("\0foosha256:{FILE_DATA0}")).hex();
    assert_eq!(tree.sum("f*o", &wildcard()), one);
    let two = "0b6731924f0a32a812bf8a729202e55e54ded331f9e4ff2397f681e43694e086";
    assert_eq!(tree.sum("f*", &wildcard()), two);
    assert_eq!(tree.sum("/f*", &wildcard()), two);
    let by_file = "6b612ad5c13159112ae26357ef7bd34df29916941ba40ec2ce38dfb70c6c60c3";
    assert_eq!(tree.sum("x/d?", &wildcard()), by_file);
    assert_eq!(tree.sum("x/d?/def", &follow_wildcard()), FILE_DATA0);
    let followed = "982153600b9653a1decb0f961e09e2bc1be335cfcaac9b39dbd1120b65fdf92c";
    assert_eq!(tree.sum("y*", &follow_wildcard()), followed);
    assert_eq!(tree.sum("nothing*", &wildcard()), NOTHING);
    assert_eq!(tree.sum("no/such/dir*", &wildcard()), NOTHING);
    let error = tree.try_sum("x/[", &wildcard()).unwrap_err();
    assert!(matches!(error, SnapshotError::Pattern { .. }), "{error}");
}

#[test]
fn include_and_exclude() {
    let lines =
        ["foo file data0", "bar file data1", "d0 dir", "d0/abc file abc", "d1 dir", "d1/def file def"];
    let more = [&lines[..], &["baz file data2", "d0/xyz file xyz", "d2 dir"]].concat();
    for wildcard in [false, true] {
        let (mut small, mut large) = (Tree::new(&lines), Tree::new(&more));
        let mut both = |patterns: &[&str]| {
            let opts = include(patterns, wildcard);
            (small.sum("", &opts), large.sum("", &opts))
        };
        let (foo, foo2) = both(&["foo"]);
        let (foo_bar, foo_bar2) = both(&["foo", "bar"]);
        assert_eq!((&foo, &foo_bar), (&foo2, &foo_bar2));
        assert_ne!(foo, foo_bar);
        let (d0, d02) = both(&["d0"]);
        assert_ne!(d0, d02);
        let (d0_star, d0_star2) = both(&["d0/*"]);
        assert_ne!(d0_star, d0_star2);
        let (d0_a, d0_a2) = both(&["d0/a*"]);
        assert_eq!((&d0_a, &d0_a), (&d0_a2, &d0_star));
        assert_eq!(both(&["**/abc"]).1, d0_a);
        let (d1, d12) = both(&["d1/*"]);
        assert_eq!(d1, d12);
        assert_eq!(both(&["d2/foo"]), (NOTHING.to_string(), NOTHING.to_string()));
        let exclude = ChecksumOpts { exclude: vec!["d0/xyz".into()], ..include(&["d0/*"], wildcard) };
        assert_eq!(large.sum("", &exclude), d0_star);
        assert_eq!(large.sum("d2", &include(&["foo"], wildcard)), NOTHING);
    }
}

#[test]
fn double_star_root() {
    if !root_user() {
        return;
    }
    let dirs = ["prefix dir", "prefix/a dir", "prefix/a/b dir", "prefix/a/b/c dir"];
    let files = [&dirs[..], &["prefix/a/b/c/foo dir", "prefix/a/b/c/foo/bar file abc"]].concat();
    let (mut empty, mut full) = (Tree::new(&dirs), Tree::new(&files));
    for wildcard in [false, true] {
        assert_eq!(empty.sum("prefix/a", &include(&["**/foo/**"], wildcard)), NOTHING);
        for patterns in [["**/foo/**", "**/report"], ["**/foo", "**/report"]] {
            assert_eq!(full.sum("prefix/a", &include(&patterns, wildcard)), DOUBLE_STAR);
        }
    }
}

#[test]
fn patterns_apply_to_the_path_as_written() {
    let mut tree = Tree::new(&[
        "data dir",
        "data/d0 dir",
        "data/d0/d1 dir",
        "data/d0/d1/d2 dir",
        "mnt dir",
        "mnt/data link ../data",
        "data/d0/d1/d2/foo file abc",
        "data/symlink-to-d0 link d0",
    ]);
    let mut sum = |path: &str, wildcard: bool| tree.sum(path, &include(&["**/foo"], wildcard));
    let d0 = sum("data/d0", false);
    assert_ne!(d0, NOTHING);
    assert_eq!(sum("mnt/data/d0", false), d0);
    assert_eq!(sum("mnt/data/d0", true), d0);
    assert_eq!(sum("mnt/data/d*", true), sum("data/d*", true));
    let d2 = sum("data/d0/d1/d2", false);
    assert_eq!(sum("mnt/data/d0/d1/d2", false), d2);
    assert_eq!(sum("mnt/data/d0/d1/d2", true), d2);
    assert_eq!(sum("mnt/data/d0/d1/d*", true), sum("data/d0/d1/d*", true));
    let inner = sum("mnt/data/d0/d*/d2", true);
    assert_ne!(inner, NOTHING);
    assert_eq!(sum("mnt/data/symlink-to-d0/d*/d2", true), inner);
}

#[test]
fn required_paths_must_be_included() {
    let mut tree = Tree::new(&["a dir", "a/x file 1", "a/y file 2"]);
    let opts = |required: &str| ChecksumOpts { required: vec![required.into()], ..include(&["x"], false) };
    tree.sum("a", &opts("/a/x"));
    tree.not_found("a", &opts("/a/y"));
}

#[test]
fn a_trailing_slash_leaves_the_directory_itself_out() {
    let mut tree = Tree::new(&["a dir", "a/x file 1"]);
    let (with, without) = (tree.sum("a", &include(&["*"], false)), tree.sum("a/", &include(&["*"], false)));
    assert_ne!(with, without);
}

#[test]
fn the_empty_filesystem_has_a_root_only() {
    assert_eq!(checksum_of_nothing("/").unwrap().hex(), NOTHING);
    assert!(checksum_of_nothing("/a").unwrap_err().is_not_found());
}

#[test]
fn many_files_hash_the_same_in_any_number_of_threads_root() {
    let lines: Vec<String> = (0..3000).map(|n| format!("f{n:04} file content{n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut tree = Tree::new(&lines);
    let whole = tree.sum("/", &plain());
    let mut one_by_one = Tree::new(&lines);
    for n in 0..3000 {
        checksum(&one_by_one.root, &mut one_by_one.hashes, &format!("f{n:04}"), &plain()).unwrap();
    }
    assert_eq!(one_by_one.sum("/", &plain()), whole);
}

#[test]
fn deep_trees_are_hashed_and_deeper_ones_refused() {
    // The smallest stack that threads here have.
    let run = || {
        for (depth, fits) in [(500, true), (520, false)] {
            let mut tree = Tree::new(&[]);
            let path = vec!["d"; depth].join("/");
            tree.root.create_dir_all(&path, 0o755, None, None).unwrap();
            let opts = [plain(), include(&["**/x"], false), include(&["d"], true)];
            for opts in opts {
                match tree.try_sum("/", &opts) {
                    Ok(_) => assert!(fits),
                    Err(error) => assert!(!fits && matches!(error, SnapshotError::TooDeep { .. }), "{error}"),
                }
            }
            let mut received = Received::new(&[&format!("{path} dir")]);
            assert_eq!(received.sum("nosuch", &plain()).unwrap_err().is_not_found(), fits);
            tree.root.remove_all("d").unwrap();
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

/// A transfer that reports what it writes.
struct Received(HashTree);

impl Received {
    fn new(lines: &[&str]) -> Self {
        let mut received = Self(HashTree::received());
        received.apply(lines);
        received
    }

    fn apply(&mut self, lines: &[&str]) {
        self.0.start_update();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let path = Path::new(words[0]);
            let digest = |mode: u32, link: &str, content: &str| {
                let size = content.len() as u64;
                let mut hasher =
                    FileHasher::new(&FileHeader { mode, link: link.into(), size, ..FileHeader::default() });
                hasher.write(content.as_bytes());
                hasher.finish()
            };
            match words[1] {
                "dir" => self.0.set_dir(path, digest(0o040_755, "", "")),
                "private" => self.0.set_dir(path, digest(0o040_700, "", "")),
                "file" => self.0.set_file(path, digest(0o100_644, "", words[2])),
                "link" => self.0.set_symlink(path, words[2].as_ref(), digest(0o120_777, words[2], "")),
                "hard" => self.0.set_hard_link(path, Path::new(words[2])),
                "gone" => self.0.remove(path),
                other => panic!("{other}"),
            }
        }
    }

    fn sum(&mut self, path: &str, opts: &ChecksumOpts) -> Result<String, SnapshotError> {
        let empty = TempDir::new().unwrap();
        let nothing = Root::open(empty.path()).unwrap();
        checksum(&nothing, &mut self.0, path, opts).map(|digest| digest.hex())
    }
}

#[test]
fn a_transfer_gives_the_digests_of_its_files() {
    let mut received = Received::new(&[
        "foo file data0",
        "bar file data1",
        "d0 dir",
        "d0/abc file data0",
        "d0/def link abc",
        "d0/ghi link nosuchfile",
    ]);
    assert_eq!(received.sum("foo", &follow()).unwrap(), FILE_DATA0);
    assert_eq!(received.sum("d0/def", &follow()).unwrap(), FILE_DATA0);
    assert_eq!(received.sum("d0", &follow()).unwrap(), DIR_D0);
    received.apply(&["d0/ghi gone"]);
    assert_eq!(received.sum("d0", &follow()).unwrap(), DIR_D0_WITHOUT_GHI);
    received.apply(&["d0 gone"]);
    assert!(received.sum("d0", &follow()).unwrap_err().is_not_found());
    assert!(received.sum("d0/abc", &follow()).unwrap_err().is_not_found());
}

#[test]
fn a_transfer_updates_directories() {
    let mut received = Received::new(&[
        "d0 dir",
        "d0/foo dir",
        "d0/foo/bar file data0",
        "d0/foo/subdir1 dir",
        "d0/foo/subdir1/baz file data1",
        "d0/foo/subdir2 dir",
    ]);
    let before = "e76717544f71725bd759a981554ca17c286b3d222598f46a671b983fd2b8172d";
    assert_eq!(received.sum("d0/foo", &plain()).unwrap(), before);
    received.apply(&["d0/foo private"]);
    let after = "3a729f6ba0d3d74c6ade7d118b08b46e37e447afdad7fc6e258dbba12fa80141";
    assert_eq!(received.sum("d0/foo", &plain()).unwrap(), after);
    assert_eq!(received.sum("d0/foo/bar", &plain()).unwrap(), FILE_DATA0);
    received.apply(&["d0/foo file data2"]);
    assert_eq!(received.sum("d0/foo", &plain()).unwrap(), FILE_DATA2);
    assert!(received.sum("d0/foo/bar", &plain()).unwrap_err().is_not_found());
    let mut unordered = Received::new(&[
        "d0 dir",
        "d0/foo dir",
        "d0/foo/bar file data0",
        "d0/foo-subdir dir",
        "d0/foo.subdir file data1",
    ]);
    let expected = "14276c302c940a80f82ca5477bf766c98a24702d6a9948ee71bb277cdad3ae05";
    assert_eq!(unordered.sum("d0", &follow()).unwrap(), expected);
}

#[test]
fn hard_links_take_the_record_of_their_target() {
    let mut late = Received::new(&["ln hard abc/foo", "abc dir", "abc/foo file data0", "ln2 hard abc/foo"]);
    for path in ["abc/foo", "ln", "ln2"] {
        assert_eq!(late.sum(path, &plain()).unwrap(), FILE_DATA0, "{path}");
    }
    late.apply(&["abc/foo file data1", "ln hard abc/foo"]);
    assert_eq!(late.sum("abc/foo", &plain()).unwrap(), FILE_DATA1);
    assert_eq!(late.sum("ln", &plain()).unwrap(), FILE_DATA1);
    assert_eq!(late.sum("ln2", &plain()).unwrap(), FILE_DATA0, "not mentioned, not changed");
}

#[test]
fn links_in_a_transfer_are_followed() {
    let mut received = Received::new(&[
        "d1 dir",
        "d1/sub dir",
        "d1/sub/foo file data0",
        "d1/sub/bar link /link",
        "d1/sub/baz link ../../../link",
        "d1/sub/bay link ../../../../link/.",
        "d1/def link sub",
        "sub dir",
        "sub/d0 dir",
        "sub/d0/abc file data0",
        "sub/d0/def link abc",
        "sub/d0/ghi link nosuchfile",
        "link link sub/d0",
    ]);
    assert_eq!(received.sum("d1/def/foo", &follow()).unwrap(), FILE_DATA0);
    assert_eq!(received.sum("d1/def/bar/abc", &follow()).unwrap(), FILE_DATA0);
    for path in ["sub/d0", "d1/def/baz", "d1/def/bay", "link"] {
        assert_eq!(received.sum(path, &follow()).unwrap(), DIR_D0, "{path}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_can_be_loaded(mut bytes: Vec<u8>, cut in 0usize..200) {
        proptest::prop_assert!(HashTree::from_bytes(&bytes).is_none());
        bytes = Received::new(&["a dir", "a/b file x", "c link d"]).0.to_bytes();
        bytes.truncate(bytes.len().saturating_sub(cut));
        proptest::prop_assert_eq!(HashTree::from_bytes(&bytes).is_some(), cut == 0);
    }
}
