//! The 512-byte header: fields, numbers, checksum.

use super::BLOCK;

pub(super) type Block = [u8; BLOCK];

/// A field: where it starts and how long it is.
pub(super) type Field = (usize, usize);

pub(super) const NAME: Field = (0, 100);
pub(super) const MODE: Field = (100, 8);
pub(super) const UID: Field = (108, 8);
pub(super) const GID: Field = (116, 8);
pub(super) const SIZE: Field = (124, 12);
pub(super) const MTIME: Field = (136, 12);
pub(super) const CHECKSUM: Field = (148, 8);
pub(super) const FLAG: usize = 156;
pub(super) const LINK: Field = (157, 100);
const MAGIC: Field = (257, 8);
pub(super) const DEV_MAJOR: Field = (329, 8);
pub(super) const DEV_MINOR: Field = (337, 8);
pub(super) const USTAR_PREFIX: Field = (345, 155);
const STAR_PREFIX: Field = (345, 131);
const STAR_TRAILER: Field = (508, 4);
pub(super) const GNU_ATIME: Field = (345, 12);
pub(super) const GNU_SPARSE: Field = (386, 97);
pub(super) const GNU_REAL_SIZE: Field = (483, 12);

/// Which layout the second half of a header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    V7,
    Ustar,
    Star,
    Gnu,
}

pub(super) fn field(block: &Block, f: Field) -> &[u8] {
    &block[f.0..f.0 + f.1]
}

/// A text field: up to the first NUL, or all of it.
pub(super) fn text(block: &Block, f: Field) -> &[u8] {
    c_string(field(block, f))
}

pub(super) fn c_string(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

pub(super) fn layout(block: &Block) -> Layout {
    match field(block, MAGIC) {
        [b'u', b's', b't', b'a', b'r', 0, ..] if field(block, STAR_TRAILER) == b"tar\0" => Layout::Star,
        [b'u', b's', b't', b'a', b'r', 0, ..] => Layout::Ustar,
        b"ustar  \0" => Layout::Gnu,
        _ => Layout::V7,
    }
}

/// Directory part of the name, where the layout has one.
pub(super) fn prefix(block: &Block, layout: Layout) -> &[u8] {
    match layout {
        Layout::Ustar => text(block, USTAR_PREFIX),
        Layout::Star => text(block, STAR_PREFIX),
        Layout::V7 | Layout::Gnu => b"",
    }
}

/// Sums of all bytes with the checksum field as spaces: as unsigned bytes, and as signed ones for old writers.
fn checksums(block: &Block) -> (i64, i64) {
    let own = field(block, CHECKSUM);
    let blanks = own.len() as i64 * i64::from(b' ');
    let sum = |value: fn(&u8) -> i64| -> i64 {
        block.iter().map(value).sum::<i64>() - own.iter().map(value).sum::<i64>() + blanks
    };
    let unsigned = sum(|&b| i64::from(b));
    let signed = sum(|&b| i64::from(b as i8));
    (unsigned, signed)
}

pub(super) fn checksum_ok(block: &Block) -> bool {
    let (unsigned, signed) = checksums(block);
    octal(field(block, CHECKSUM)).is_some_and(|sum| sum == unsigned || sum == signed)
}

pub(super) fn set_checksum(block: &mut Block) {
    let (sum, _) = checksums(block);
    // Six digits, NUL, space, as everyone writes it.
    let digits = format!("{sum:06o}\0 ");
    put(block, CHECKSUM, digits.as_bytes());
}

/// A number: octal text, or base-256 (two's complement, GNU) when the first bit is set. `None` if it is neither or does
/// not fit.
pub(super) fn number(bytes: &[u8]) -> Option<i64> {
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => {
            let negative = first & 0x40 != 0;
            // The mark itself is no part of the number; extend the sign over it.
            let first = if negative { *first } else { *first & 0x7f };
            let mut value: i128 = i128::from(first as i8);
            for &b in &bytes[1..] {
                value = value.checked_mul(256)?.checked_add(i128::from(b))?;
            }
            i64::try_from(value).ok()
        }
        _ => octal(bytes),
    }
}

/// Octal digits with blanks or NULs around them; empty is zero.
fn octal(bytes: &[u8]) -> Option<i64> {
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let Some(start) = bytes.iter().position(|b| !blank(b)) else { return Some(0) };
    let end = bytes.iter().rposition(|b| !blank(b))?;
    let digits = c_string(&bytes[start..=end]);
    let mut value: i64 = 0;
    for &d in digits {
        if !(b'0'..=b'7').contains(&d) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(d - b'0'))?;
    }
    Some(value)
}

/// Whether an octal field of this length, NUL included, holds the number.
pub(super) fn fits_octal(f: Field, value: i64) -> bool {
    value >= 0 && value < 1 << ((f.1 - 1) * 3)
}

/// Writes zero-padded octal; zero when it does not fit (a PAX record then has the number).
pub(super) fn put_octal(block: &mut Block, f: Field, value: i64) {
    let value = if fits_octal(f, value) { value } else { 0 };
    let digits = format!("{value:0width$o}\0", width = f.1 - 1);
    put(block, f, digits.as_bytes());
}

/// Writes bytes, cut to the field.
pub(super) fn put(block: &mut Block, f: Field, bytes: &[u8]) {
    let n = bytes.len().min(f.1);
    block[f.0..f.0 + n].copy_from_slice(&bytes[..n]);
}

pub(super) fn set_ustar_magic(block: &mut Block) {
    put(block, MAGIC, b"ustar\x0000");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (bytes, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"", Some(0)),
            (b"0000648\0", None),
            (b"-0000644", None),
            (b"\x80\0\0\0\x02\0\0\0", Some(0x0200_0000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\0\x7f\xff\xff\xff\xff\xff\xff", Some(0x7f_ffff_ffff_ffff)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", None),
            (b"777777777777777777777777", None),
        ] {
            assert_eq!(number(bytes), value, "{bytes:?}");
        }
        assert!(fits_octal(UID, 0o7777777) && !fits_octal(UID, 0o10000000) && !fits_octal(UID, -1));
    }
}
