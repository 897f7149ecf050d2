//! Signals by name: numbers differ between platforms, so the wire has names, without `SIG`.

/// Linux on x86 and arm, signal(7); with the old names that clients know.
const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// Real-time signals as the C library counts them.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a name; `None` for one that is no signal.
pub(super) fn number(name: &str) -> Option<i32> {
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        text => text.strip_prefix(sign)?.parse::<i32>().ok().filter(|n| (1..=15).contains(n)),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return Some(RTMIN + offset(rest, '+')?);
    }
    Some(RTMAX - offset(name.strip_prefix("RTMAX")?, '-')?)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn names_are_exact() {
        assert_eq!([number("TERM"), number("KILL"), number("USR1")], [Some(15), Some(9), Some(10)]);
        assert_eq!([number("RTMIN"), number("RTMIN+15"), number("RTMAX-14")], [Some(34), Some(49), Some(50)]);
        for bad in ["", "SIGTERM", "term", "9", "RTMIN+16", "RTMAX-", "RTMIN-1", "RTMIN+0", "KILL "] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
