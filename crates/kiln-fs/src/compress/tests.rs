use std::process::{Command, Stdio};

use super::*;

/// Compressible, but not trivially, and the same every time.
fn sample(len: usize) -> Vec<u8> {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(format!("line {} of {}\n", x % 1000, x % 77).as_bytes());
    }
    out.truncate(len);
    out
}

fn encode(data: &[u8], kind: Compression, threads: usize, piece: usize) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new(), kind, None, threads).unwrap();
    for part in data.chunks(piece) {
        e.write_all(part).unwrap();
        e.flush().unwrap();
    }
    e.finish().unwrap()
}

fn decode(data: &[u8]) -> io::Result<(Compression, Vec<u8>)> {
    let (kind, mut d) = auto_decoder(data)?;
    let mut out = Vec::new();
    d.read_to_end(&mut out)?;
    Ok((kind, out))
}

#[test]
fn bytes_do_not_depend_on_threads_or_write_sizes() {
    let data = sample((3 << 20) + 12345);
    for kind in [Compression::Gzip, Compression::Zstd] {
        let one = encode(&data, kind, 1, 1 << 20);
        assert_eq!(one, encode(&data, kind, 2, 4093), "{kind:?}");
        assert_eq!(one, encode(&data, kind, 5, 3 << 20), "{kind:?}");
        assert_eq!(decode(&one).unwrap(), (kind, data.clone()));
    }
}

#[test]
fn edges_of_members() {
    for len in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2 << 20] {
        let data = sample(len);
        for kind in [Compression::Gzip, Compression::Zstd] {
            for threads in [1, 2] {
                let packed = encode(&data, kind, threads, 70_000);
                assert_eq!(decode(&packed).unwrap(), (kind, data.clone()), "{kind:?} {len}");
            }
        }
    }
}

#[test]
fn the_gzip_header_carries_nothing_of_the_machine() {
    let packed = encode(b"x", Compression::Gzip, 1, 1);
    // Magic, deflate, no flags, no time, extra flags 0 for this level, system unknown.
    assert_eq!(packed[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
}

fn pipe(tool: &str, args: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new(tool).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: no {tool} here");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feed = std::thread::spawn(move || stdin.write_all(&input));
    let out = child.wait_with_output().unwrap();
    feed.join().unwrap().unwrap();
    assert!(out.status.success(), "{tool}");
    Some(out.stdout)
}

#[test]
fn tools_and_we_understand_each_other() {
    let data = sample(1_500_000);
    for (tool, kind) in [
        ("gzip", Compression::Gzip),
        ("zstd", Compression::Zstd),
        ("bzip2", Compression::Bzip2),
        ("xz", Compression::Xz),
    ] {
        if let Some(packed) = pipe(tool, &["-c"], &data) {
            assert_eq!(decode(&packed).unwrap(), (kind, data.clone()), "{tool}");
            // Concatenated streams are one stream.
            let twice = [packed.clone(), packed.clone()].concat();
            assert_eq!(decode(&twice).unwrap().1.len(), data.len() * 2, "{tool}");
            // A cut one is an error, not a short file.
            assert!(decode(&packed[..packed.len() - 5]).is_err(), "{tool}");
        }
    }
    for (tool, kind) in [("gzip", Compression::Gzip), ("zstd", Compression::Zstd)] {
        if let Some(plain) = pipe(tool, &["-d", "-c"], &encode(&data, kind, 2, 1 << 16)) {
            assert_eq!(plain, data, "{tool}");
        }
    }
}

#[test]
fn plain_streams_pass_through() {
    for data in [&b""[..], b"a", b"\x1f\x8b", b"hello world"] {
        assert_eq!(decode(data).unwrap(), (Compression::Uncompressed, data.to_vec()));
        assert_eq!(encode(data, Compression::Uncompressed, 1, 3), data);
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    assert!(Encoder::new(Vec::new(), Compression::Xz, None, 1).is_err());
    assert!(Encoder::new(Vec::new(), Compression::Gzip, Some(10), 1).is_err());
    assert!(Encoder::new(Vec::new(), Compression::Zstd, Some(23), 1).is_err());
    // A zstd frame that wants a 2 GiB window: magic, no single segment, window byte 0xa8 (2^31).
    let bomb = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
    assert!(decode(&bomb).is_err());
    assert_eq!(detect(&[0x5e, 0x2a, 0x4d, 0x18]), Compression::Zstd);
}
