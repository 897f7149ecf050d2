use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use kiln_digest::Digest;
use proptest::prelude::*;

use super::*;

fn bytes(path: &[u8]) -> PathBuf {
    OsStr::from_bytes(path).into()
}

fn at(secs: i64, nanos: u32) -> FileTime {
    FileTime { secs, nanos }
}

fn entry(path: impl AsRef<[u8]>, kind: EntryKind, mode: u32, data: &[u8]) -> (Entry, Vec<u8>) {
    let mut e = Entry::new(bytes(path.as_ref()), kind);
    e.mode = mode;
    e.mtime = at(1_700_000_000, 0);
    e.size = data.len() as u64;
    (e, data.to_vec())
}

fn with(mut e: (Entry, Vec<u8>), change: impl FnOnce(&mut Entry)) -> (Entry, Vec<u8>) {
    change(&mut e.0);
    e
}

fn pack(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut w = Writer::new(Vec::new());
    for (e, data) in entries {
        w.append(e, &data[..]).unwrap();
    }
    w.finish().unwrap()
}

fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut r = Reader::new(archive);
    let mut all = Vec::new();
    while let Some(e) = r.next_entry()? {
        let mut data = Vec::new();
        r.read_to_end(&mut data)?;
        all.push((e, data));
    }
    Ok(all)
}

/// Every choice the writer has to make.
fn choices() -> Vec<(Entry, Vec<u8>)> {
    use EntryKind::*;
    let x = |n: usize| "x".repeat(n);
    let join = |parts: &[&str]| parts.join("/");
    let link = |path: &str, kind, to: &str, mode| with(entry(path, kind, mode, b""), |e| e.link = to.into());
    let ids = |path: &str, uid, gid| with(entry(path, File, 0o644, b"ids"), |e| (e.uid, e.gid) = (uid, gid));
    let time = |path: &str, t| with(entry(path, File, 0o644, b"t"), |e| e.mtime = t);
    let dev = |path: &str, kind, mode, rdev| with(entry(path, kind, mode, b""), |e| e.rdev = rdev);
    let xattrs = |e: (Entry, Vec<u8>), list: &[(&str, &[u8])]| {
        with(e, |e| e.xattrs = list.iter().map(|(k, v)| (OsString::from(k), v.to_vec())).collect())
    };
    vec![
        entry("dir/", Dir, 0o1755, b""),
        with(entry("dir/file", File, 0o4644, b"hello"), |e| (e.uid, e.gid) = (1, 2)),
        with(entry("empty", File, 0o600, b""), |e| e.mtime = at(0, 0)),
        entry(x(100), File, 0o644, x(512).as_bytes()),
        entry(x(101), File, 0o644, x(513).as_bytes()),
        entry(join(&[&x(60), &x(60)]), File, 0o644, b"split"),
        entry(join(&[&x(155), &x(99), ""]), Dir, 0o755, b""),
        entry(join(&[&x(155), &x(100), ""]), Dir, 0o755, b""),
        entry(join(&[&x(156), &x(3)]), File, 0o644, b"prefix too long"),
        entry(join(&["a", &x(150), &x(99)]), File, 0o644, b""),
        entry("gr\u{fc}\u{df}e", File, 0o644, b"utf8"),
        entry(b"latin\xfc/\xff", File, 0o644, b"bytes"),
        link("link", Symlink, "../target", 0o777),
        link("longlink", Symlink, &x(150), 0o777),
        link("utflink", Symlink, "\u{fc}", 0o777),
        link("hard", HardLink, "dir/file", 0o644),
        entry("fifo", Fifo, 0o644, b""),
        dev("null", CharDevice, 0o666, (1, 3)),
        dev("disk", BlockDevice, 0o660, (259, 2_097_151)),
        ids("bigid", 3_000_000, 4_294_967_294),
        ids("maxid", 2_097_151, 2_097_152),
        time("nano", at(1_700_000_000, 123_456_789)),
        time("nano2", at(1_700_000_000, 500_000_000)),
        time("old", at(-5, 0)),
        time("older", at(-5, 250_000_000)),
        time("far", at(1 << 33, 0)),
        xattrs(
            entry("xattr", File, 0o644, b"x"),
            &[("user.b", b"\0\x01\n="), ("user.a", b""), ("security.capability", x(20).as_bytes())],
        ),
        xattrs(entry(join(&[&x(60), &x(61)]), File, 0o644, b"x"), &[("user.a", b"both")]),
        with(entry(x(98) + "//", Dir, 0o755, b""), |e| e.uid = 3_000_000),
        entry(x(99) + "//////", Dir, 0o755, b""),
        entry(join(&["\u{fc}", &x(120), ""]), Dir, 0o755, b""),
    ]
}

/// The digest is that of the archive Go's `archive/tar` (1.26) writes for the same entries with `FormatPAX`.
#[test]
fn the_writer_decides_as_gos() {
    let archive = pack(&choices());
    let golden = "9c2749233b1a9f468896850fee9854f4ed6086367d408799c7009addfe58f05b";
    assert_eq!((archive.len(), Digest::sha256(&archive).hex()), (44032, golden.to_string()));
}

#[test]
fn what_is_written_reads_back() {
    let entries = choices();
    assert_eq!(read(&pack(&entries)).unwrap(), entries);
}

#[test]
fn the_writer_refuses_what_cannot_be_kept() {
    let refuse = |e: Entry| {
        let mut w = Writer::new(Vec::new());
        w.begin(&e).unwrap_err().to_string()
    };
    let nul = Entry::new(bytes(b"a\0b"), EntryKind::File);
    assert_eq!(refuse(nul), "cannot write a\0b to a tar archive: NUL in a name");
    assert!(refuse(Entry::new("a/", EntryKind::File)).contains("slash"));
    let mut dev = Entry::new("d", EntryKind::CharDevice);
    dev.rdev = (1, 1 << 21);
    assert!(refuse(dev).contains("device number"));
    let mut big = Entry::new("d", EntryKind::File);
    big.xattrs.insert("user.x".into(), vec![0; 2 << 20]);
    assert!(refuse(big).contains("too long"));

    let mut w = Writer::new(Vec::new());
    let mut e = Entry::new("f", EntryKind::File);
    e.size = 5;
    assert!(w.append(&e, &b"abc"[..]).unwrap_err().to_string().contains("shorter"));
    assert!(w.append_empty(&e).is_err(), "the entry before is incomplete");
    let mut w = Writer::new(Vec::new());
    w.begin(&e).unwrap();
    assert!(w.write_all(b"abcdef").is_err());
    assert!(w.finish().is_ok());
}

/// A header block, GNU or USTAR.
fn block(name: &str, flag: u8, size: u64, gnu: bool) -> header::Block {
    let mut b = [0; BLOCK];
    header::put(&mut b, header::NAME, name.as_bytes());
    for f in [header::MODE, header::UID, header::GID, header::MTIME] {
        header::put_octal(&mut b, f, 0);
    }
    header::put_octal(&mut b, header::SIZE, size as i64);
    b[header::FLAG] = flag;
    match gnu {
        true => b[257..265].copy_from_slice(b"ustar  \0"),
        false => header::set_ustar_magic(&mut b),
    }
    header::set_checksum(&mut b);
    b
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut v = data.to_vec();
    v.resize(v.len().next_multiple_of(BLOCK), 0);
    v
}

/// A header with content.
fn member(name: &str, flag: u8, data: &[u8], gnu: bool) -> Vec<u8> {
    [block(name, flag, data.len() as u64, gnu).to_vec(), padded(data)].concat()
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (k, v) in records {
        pax::format_record(&mut data, k.as_bytes(), v.as_bytes());
    }
    member("PaxHeaders.0/x", b'x', &data, false)
}

fn names(archive: &[u8]) -> Vec<(String, String, Vec<u8>)> {
    let all = read(archive).unwrap();
    let text = |p: &PathBuf| p.display().to_string();
    all.iter().map(|(e, d)| (text(&e.path), text(&e.link), d.clone())).collect()
}

#[test]
fn ends_of_archives() {
    let one = member("a", b'0', b"data", false);
    for tail in [0, 512, 1024, 10240] {
        let archive = [one.clone(), vec![0; tail]].concat();
        assert_eq!(read(&archive).unwrap().len(), 1, "{tail}");
    }
    assert_eq!(read(&[0; 700][..]).unwrap_err().to_string(), "tar archive ends early, at byte 700");
    assert!(matches!(
        read(&[one.clone(), vec![0; 512], one.clone()].concat()),
        Err(TarError::Malformed { offset: 1024, .. })
    ));
    // What follows the end is not looked at.
    assert_eq!(read(&[one.clone(), vec![0; 1024], one.clone()].concat()).unwrap().len(), 1);
    for cut in [1, 511, 513, 515, 520, 1000] {
        assert!(matches!(read(&one[..cut]), Err(TarError::Truncated { .. } | TarError::Io(_))), "{cut}");
    }
}

#[test]
fn checksums_are_checked() {
    let mut one = member("a", b'0', b"", false);
    one[0] = b'b';
    assert_eq!(read(&one).unwrap_err().to_string(), "malformed tar header at byte 0: bad checksum");
    // Old writers summed signed bytes.
    let mut b = block("\u{fc}", b'0', 0, false);
    let signed: i64 = b
        .iter()
        .enumerate()
        .map(|(i, &c)| if (148..156).contains(&i) { 32 } else { i64::from(c as i8) })
        .sum();
    header::put(&mut b, header::CHECKSUM, format!("{signed:06o}\0 ").as_bytes());
    assert_eq!(read(&b).unwrap().len(), 1);
}

#[test]
fn gnu_long_names_and_links() {
    let long = "n".repeat(300);
    let archive = [
        member("././@LongLink", b'L', format!("{long}\0").as_bytes(), true),
        member("././@LongLink", b'K', format!("{long}/to\0").as_bytes(), true),
        member("short", b'2', b"", true),
        member("plain", b'0', b"x", true),
    ]
    .concat();
    let want = [(long.clone(), format!("{long}/to"), vec![]), ("plain".into(), String::new(), b"x".to_vec())];
    assert_eq!(names(&archive), want);
}

#[test]
fn pax_fields_apply_to_the_next_entry_only() {
    let archive = [
        pax(&[
            ("path", "real"),
            ("linkpath", "to"),
            ("size", "3"),
            ("uid", "-2"),
            ("mtime", "1.5"),
            ("atime", "2"),
            ("gid", ""),
        ]),
        member("fake", b'0', b"", false),
        padded(b"abc"),
        member("next", b'0', b"", false),
    ]
    .concat();
    let all = read(&archive).unwrap();
    let (first, data) = &all[0];
    assert_eq!(
        (first.path.to_str(), first.link.to_str(), data.as_slice()),
        (Some("real"), Some("to"), &b"abc"[..])
    );
    assert_eq!(
        (first.uid, first.gid, first.mtime, first.atime),
        (u32::MAX - 1, 0, at(1, 500_000_000), Some(at(2, 0)))
    );
    assert_eq!(all[1].0, Entry::new("next", EntryKind::File));
}

/// Readers that disagree about where an entry ends see different archives (GHSA-3cv2-h65g-fgmm, CVE-2025-62518): the
/// size record is for the file, not for headers between.
#[test]
fn sizes_stay_in_step() {
    let archive = [
        pax(&[("size", "512")]),
        member("././@LongLink", b'L', b"name\0", true),
        member("x", b'0', b"", false),
        member("hidden", b'0', b"", false)[..512].to_vec(),
        member("after", b'0', b"", false),
    ]
    .concat();
    let all = names(&archive);
    assert_eq!(all.iter().map(|n| n.0.as_str()).collect::<Vec<_>>(), ["name", "after"]);
    assert_eq!(all[0].2.len(), 512);
    // Links and directories have no content whatever is announced.
    let archive = [block("dir", b'5', 512, false).to_vec(), member("after", b'0', b"", false)].concat();
    assert_eq!(names(&archive).len(), 2);
    let archive =
        [pax(&[("size", "512")]), member("l", b'1', b"", false), member("after", b'0', b"", false)].concat();
    assert_eq!(names(&archive).len(), 2);
}

#[test]
fn global_records_are_no_one_elses() {
    let data = {
        let mut d = Vec::new();
        pax::format_record(&mut d, b"path", b"all");
        d
    };
    let archive = [member("pax_global_header", b'g', &data, false), member("own", b'0', b"", false)].concat();
    let all = read(&archive).unwrap();
    assert_eq!(all[0].0.kind, EntryKind::GlobalHeader);
    assert_eq!(all[1].0.path.to_str(), Some("own"));
    let archive =
        [member("pax_global_header", b'g', b"junk", false), member("own", b'0', b"", false)].concat();
    assert!(read(&archive).is_err());
}

#[test]
fn old_types() {
    let archive =
        [member("dir/", 0, b"", false), member("file", 0, b"v7", false), member("cont", b'7', b"c", false)]
            .concat();
    let kinds: Vec<_> = read(&archive).unwrap().iter().map(|(e, d)| (e.kind, d.len())).collect();
    assert_eq!(kinds, [(EntryKind::Dir, 0), (EntryKind::File, 2), (EntryKind::File, 1)]);
    assert_eq!(read(&member("label", b'V', b"", true)).unwrap()[0].0.kind, EntryKind::Other(b'V'));
}

#[test]
fn metadata_is_bounded() {
    for flag in [b'x', b'L', b'K', b'g'] {
        let b = block("meta", flag, MAX_METADATA + 1, true);
        let e = read(&b).unwrap_err().to_string();
        assert_eq!(e, "malformed tar header at byte 0: extended header is too long");
    }
    let mut b = block("neg", b'0', 0, true);
    b[124..136].copy_from_slice(&[0xff; 12]);
    header::set_checksum(&mut b);
    assert!(read(&b).unwrap_err().to_string().ends_with("negative size"));
    // A gigantic file that is not there.
    assert!(matches!(read(&block("big", b'0', 1 << 32, true)), Err(TarError::Io(_))));
}

/// "ab" at 3 and "c" at 8 of a file of 10 bytes.
const SPARSE: &[u8] = b"\0\0\0ab\0\0\0c\0";

fn old_gnu(pieces: &[(u64, u64)], real: u64, data: &[u8]) -> Vec<u8> {
    let mut b = block("sparse", b'S', data.len() as u64, true);
    header::put_octal(&mut b, header::GNU_REAL_SIZE, real as i64);
    let put = |area: &mut [u8], pieces: &[(u64, u64)]| {
        for (slot, (offset, len)) in area.chunks_exact_mut(24).zip(pieces) {
            slot[..12].copy_from_slice(format!("{offset:011o}\0").as_bytes());
            slot[12..].copy_from_slice(format!("{len:011o}\0").as_bytes());
        }
    };
    put(&mut b[386..482], pieces);
    let rest = pieces.get(4..).unwrap_or_default();
    b[482] = u8::from(!rest.is_empty());
    header::set_checksum(&mut b);
    let mut out = b.to_vec();
    let chunks: Vec<_> = rest.chunks(21).collect();
    for (i, chunk) in chunks.iter().enumerate() {
        let mut x = [0u8; BLOCK];
        put(&mut x[..504], chunk);
        x[504] = u8::from(i + 1 < chunks.len());
        out.extend_from_slice(&x);
    }
    [out, padded(data), member("after", b'0', b"", false)].concat()
}

#[test]
fn sparse_files_of_all_formats() {
    let v00 = pax(&[
        ("GNU.sparse.size", "10"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "3"),
        ("GNU.sparse.numbytes", "2"),
        ("GNU.sparse.offset", "8"),
        ("GNU.sparse.numbytes", "1"),
    ]);
    let v01 = pax(&[
        ("GNU.sparse.size", "10"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.name", "sparse"),
        ("GNU.sparse.map", "3,2,8,1"),
    ]);
    let v10 = pax(&[
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "sparse"),
        ("GNU.sparse.realsize", "10"),
    ]);
    let file =
        |name, data: &[u8]| [member(name, b'0', data, false), member("after", b'0', b"", false)].concat();
    let map10 = [padded(b"2\n3\n2\n8\n1\n"), b"abc".to_vec()].concat();
    for (what, archive) in [
        ("old", old_gnu(&[(3, 2), (8, 1)], 10, b"abc")),
        ("old with empty end", old_gnu(&[(3, 2), (8, 1), (10, 0)], 10, b"abc")),
        ("old long", old_gnu(&[(3, 1), (4, 1), (5, 0), (6, 0), (8, 1), (9, 0)], 10, b"abc")),
        ("0.0", [v00, file("sparse", b"abc")].concat()),
        ("0.1", [v01, file("fake", b"abc")].concat()),
        ("1.0", [v10.clone(), file("GNUSparseFile.0/sparse", &map10)].concat()),
    ] {
        let all = read(&archive).unwrap();
        assert_eq!(all[0].0.path.to_str(), Some("sparse"), "{what}");
        assert_eq!((all[0].0.size, all[0].1.as_slice()), (10, SPARSE), "{what}");
        assert_eq!(all[1].0.path.to_str(), Some("after"), "{what}");

        let mut r = Reader::new(&archive[..]);
        r.next_entry().unwrap();
        let mut f = tempfile::tempfile().unwrap();
        assert_eq!(r.copy_content_to(&mut f).unwrap(), 10);
        std::io::Seek::rewind(&mut f).unwrap();
        let mut got = Vec::new();
        f.read_to_end(&mut got).unwrap();
        assert_eq!(got, SPARSE, "{what}");
        assert_eq!(r.next_entry().unwrap().unwrap().path.to_str(), Some("after"), "{what}");
    }
    for (what, archive) in [
        ("overlap", old_gnu(&[(3, 2), (4, 1)], 10, b"abc")),
        ("beyond the end", old_gnu(&[(3, 2), (10, 1)], 10, b"abc")),
        ("less data", old_gnu(&[(3, 2), (8, 1)], 10, b"ab")),
        ("more data", old_gnu(&[(3, 2), (8, 1)], 10, b"abcd")),
        ("overflow", old_gnu(&[(u32::MAX.into(), 8_000_000_000)], 10, b"abc")),
        ("cut map", [v10.clone(), file("s", b"2\n3\n")].concat()),
        ("endless map", [v10.clone(), file("s", &[b'1'; 2 << 20])].concat()),
        ("many pieces", [v10, file("s", &padded(b"99999999\n"))].concat()),
    ] {
        assert!(read(&archive).is_err(), "{what}");
    }
}

fn gnu_tar(dir: &std::path::Path, args: &[&str]) -> Option<Vec<u8>> {
    let out =
        Command::new("tar").current_dir(dir).args(args).stdout(Stdio::piped()).stderr(Stdio::null()).output();
    match out {
        Ok(out) if out.status.success() => Some(out.stdout),
        _ => {
            eprintln!("skipped: tar {args:?} does not work here");
            None
        }
    }
}

#[test]
fn archives_of_gnu_tar_are_read() {
    use std::os::unix::fs::{FileExt, symlink};
    let tmp = tempfile::tempdir().unwrap();
    let d = tmp.path();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    std::fs::create_dir(d.join("d".repeat(120))).unwrap();
    std::fs::write(d.join(&long), "long").unwrap();
    std::fs::write(d.join(OsStr::from_bytes(b"latin\xfc")), "bytes").unwrap();
    symlink("t".repeat(150), d.join("link")).unwrap();
    std::fs::hard_link(d.join(&long), d.join("zhard")).unwrap();
    let sparse = std::fs::File::create(d.join("sparse")).unwrap();
    for i in 0..40u64 {
        sparse.write_all_at(&[i as u8 + 1; 4096], i * 1_000_000 / 4096 * 4096).unwrap();
    }
    sparse.set_len(45_000_000).unwrap();
    let want = std::fs::read(d.join("sparse")).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=pax"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
    ] {
        let args = [&["-c", "--sparse", "--sort=name"], format, &["."]].concat();
        let Some(archive) = gnu_tar(d, &args) else { continue };
        assert!(archive.len() < 5_000_000, "{format:?}: not sparse");
        let all = read(&archive).unwrap();
        let find =
            |p: &[u8]| all.iter().find(|(e, _)| e.path == bytes(p)).unwrap_or_else(|| panic!("{format:?}"));
        assert_eq!(find(format!("./{long}").as_bytes()).1, b"long");
        assert_eq!(find(b"./latin\xfc").1, b"bytes");
        assert_eq!(find(b"./link").0.link, PathBuf::from("t".repeat(150)));
        assert_eq!(find(b"./zhard").0.link, PathBuf::from(format!("./{long}")));
        assert!(find(b"./sparse").1 == want, "{format:?}");
        assert_eq!(all.len(), 7);
    }
    for format in ["ustar", "v7"] {
        if let Some(archive) = gnu_tar(d, &["-c", &format!("--format={format}"), "sparse"]) {
            assert!(read(&archive).unwrap()[0].1 == want);
        }
    }
}

#[test]
fn gnu_tar_reads_ours() {
    let mut tar =
        match Command::new("tar").args(["-tvf", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() {
            Ok(tar) => tar,
            Err(e) => return eprintln!("skipped: no tar: {e}"),
        };
    tar.stdin.take().unwrap().write_all(&pack(&choices())).unwrap();
    let out = tar.wait_with_output().unwrap();
    assert!(out.status.success());
    assert_eq!(String::from_utf8_lossy(&out.stdout).lines().count(), choices().len());
}

fn any_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let name = prop_oneof![
        "[a-z]{1,8}(/[a-z.]{1,60}){0,5}",
        "[a-zäöü]{1,120}",
        // No line feeds: the tar crate cuts PAX values there.
        proptest::collection::vec(11u8..=255, 1..200).prop_map(|v| String::from_utf8_lossy(&v).into_owned()),
    ];
    let xattrs = proptest::collection::btree_map(
        "user\\.[a-z]{1,5}",
        proptest::collection::vec(11u8..=255, 0..20),
        0..3,
    );
    let numbers = (any::<u32>(), any::<u32>(), 0u32..0o7777, -10i64..1 << 34, 0u32..1_000_000_000);
    (name, 0..4, numbers, xattrs, proptest::collection::vec(any::<u8>(), 0..1500)).prop_map(
        |(name, kind, (uid, gid, mode, secs, nanos), xattrs, data): (
            _,
            _,
            _,
            BTreeMap<String, Vec<u8>>,
            _,
        )| {
            use EntryKind::*;
            let kind = [File, Dir, Symlink, HardLink][kind as usize];
            let mut e =
                Entry::new(name.trim_end_matches('/').to_string() + if kind == Dir { "/" } else { "" }, kind);
            (e.uid, e.gid, e.mode, e.mtime) = (uid, gid, mode, at(secs, nanos));
            e.xattrs = xattrs.into_iter().map(|(k, v)| (k.into(), v)).collect();
            if matches!(kind, Symlink | HardLink) {
                e.link = "to/".repeat(mode as usize % 50).into();
            }
            let data = if kind == File { data } else { Vec::new() };
            e.size = data.len() as u64;
            (e, data)
        },
    )
}

proptest! {
    #[test]
    fn round_trip_and_the_tar_crate_agrees(entries in proptest::collection::vec(any_entry(), 0..6)) {
        // A name of slashes only is none.
        let entries: Vec<_> = entries.into_iter().filter(|(e, _)| e.path.file_name().is_some() && !e.path.as_os_str().is_empty()).collect();
        let archive = pack(&entries);
        prop_assert_eq!(&read(&archive).unwrap(), &entries);
        let mut theirs = ::tar::Archive::new(&archive[..]);
        let mut n = 0;
        for (got, (e, data)) in theirs.entries().unwrap().zip(&entries) {
            let mut got = got.unwrap();
            prop_assert_eq!(&got.path_bytes()[..], e.path.as_os_str().as_bytes());
            prop_assert_eq!(got.header().mode().unwrap(), e.mode);
            let mut content = Vec::new();
            got.read_to_end(&mut content).unwrap();
            prop_assert_eq!(&content, data);
            n += 1;
        }
        prop_assert_eq!(n, entries.len());
    }

    #[test]
    fn broken_archives_never_panic(
        entries in proptest::collection::vec(any_entry(), 1..4),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut archive = pack(&entries);
        for (i, b) in damage {
            let i = i.index(archive.len());
            archive[i] = b;
            // Half of them with a checksum that fits.
            let start = i / BLOCK * BLOCK;
            if b % 2 == 0 && let Ok(block) = <&mut header::Block>::try_from(&mut archive[start..start + BLOCK]) {
                header::set_checksum(block);
            }
        }
        archive.truncate(cut.index(archive.len()) + 1);
        let _ = read(&archive);
    }
}
