//! Permission changes as chmod(1) writes them.

/// A parsed mode: octal (`0644`, `4755`) or symbolic (`u=rwX,go=rX`, `a+x`, `g=u`), with the meaning of BSD setmode(3)
/// and an umask of zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeChange {
    steps: Vec<Step>,
}

/// Text that is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid mode {0:?}")]
pub struct BadMode(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Clear(u32),
    Set(u32),
    /// `X`: set if it is a directory or anyone could execute it before.
    SetIfExecutable(u32),
    /// `g=u`: from the class at shift `from` to the classes in `to` (a mask of 0700, 0070, 0007).
    Copy {
        from: u32,
        to: u32,
        op: Op,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Remove,
    Assign,
}

const SET_ID: u32 = 0o6000;
const STICKY: u32 = 0o1000;
const RWX: u32 = 0o777;
const ANY_X: u32 = 0o111;
/// What a clause without classes may change.
const STANDARD: u32 = SET_ID | RWX;

impl ModeChange {
    /// An absolute mode.
    pub fn octal(mode: u32) -> ModeChange {
        ModeChange { steps: vec![Step::Clear(0o7777), Step::Set(mode & 0o7777)] }
    }

    /// Parses either form.
    pub fn parse(text: &str) -> Result<ModeChange, BadMode> {
        let bad = || BadMode(text.to_string());
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let all_digits = text.bytes().all(|b| b.is_ascii_digit());
            let mode = u32::from_str_radix(text, 8).ok().filter(|m| all_digits && *m <= 0o7777);
            return Ok(ModeChange::octal(mode.ok_or_else(bad)?));
        }
        let mut steps = Vec::new();
        for clause in text.split(',') {
            clause_steps(clause, &mut steps).ok_or_else(bad)?;
        }
        Ok(ModeChange { steps })
    }

    /// The new permission bits (07777) for an object with the given ones.
    pub fn apply(&self, old: u32, is_dir: bool) -> u32 {
        let mut mode = old & 0o7777;
        for &step in &self.steps {
            match step {
                Step::Clear(bits) => mode &= !bits,
                Step::Set(bits) => mode |= bits,
                Step::SetIfExecutable(bits) if is_dir || old & ANY_X != 0 => mode |= bits,
                Step::SetIfExecutable(_) => {}
                Step::Copy { from, to, op } => {
                    // The class's three bits, in all three places.
                    let value = ((mode >> from) & 7) * 0o111;
                    match op {
                        Op::Add => mode |= value & to,
                        Op::Remove => mode &= !(value & to),
                        Op::Assign => mode = (mode & !to) | (value & to),
                    }
                }
            }
        }
        mode
    }
}

/// One clause: `[ugoa]*([-+=][rwxXst]*|[ugo])+`.
fn clause_steps(clause: &str, steps: &mut Vec<Step>) -> Option<()> {
    let mut chars = clause.chars().peekable();
    let mut who = 0;
    while let Some(class) = chars.next_if(|c| "ugoa".contains(*c)) {
        who |= match class {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o0007,
            _ => STANDARD,
        };
    }
    chars.peek()?;
    while let Some(op) = chars.next() {
        let op = match op {
            '+' => Op::Add,
            '-' => Op::Remove,
            '=' => Op::Assign,
            _ => return None,
        };
        operation(op, &mut who, &mut chars, steps);
    }
    Some(())
}

/// The permissions after one operator. `who` can gain the sticky bit, which then holds for the rest of the clause.
fn operation(
    op: Op,
    who: &mut u32,
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    steps: &mut Vec<Step>,
) {
    *who &= !STICKY;
    let mut perms = 0;
    let mut conditional = 0;
    let mut assigned = false;
    while let Some(c) = chars.next_if(|c| "rwxXstugo".contains(*c)) {
        let not_only_other = *who == 0 || *who & !0o7 != 0;
        match c {
            'r' => perms |= 0o444,
            'w' => perms |= 0o222,
            'x' => perms |= ANY_X,
            'X' if op == Op::Remove => perms |= ANY_X,
            'X' => conditional |= ANY_X,
            's' if not_only_other => perms |= SET_ID,
            't' if not_only_other => {
                *who |= STICKY;
                perms |= STICKY;
            }
            'u' | 'g' | 'o' => {
                if perms != 0 {
                    emit(op, *who, perms, steps);
                    perms = 0;
                }
                assigned = true;
                flush_conditional(*who, &mut conditional, steps);
                let from = match c {
                    'u' => 6,
                    'g' => 3,
                    _ => 0,
                };
                let to = if *who == 0 { RWX } else { class_mask(*who) };
                steps.push(Step::Copy { from, to, op });
            }
            _ => {}
        }
    }
    if perms != 0 || (op == Op::Assign && !assigned) {
        emit(op, *who, perms, steps);
    }
    flush_conditional(*who, &mut conditional, steps);
}

fn class_mask(who: u32) -> u32 {
    [0o700, 0o070, 0o007].into_iter().filter(|class| who & class != 0).sum()
}

fn emit(op: Op, who: u32, perms: u32, steps: &mut Vec<Step>) {
    let bits = if who == 0 { perms } else { who & perms };
    match op {
        Op::Add => steps.push(Step::Set(bits)),
        Op::Remove => steps.push(Step::Clear(bits)),
        Op::Assign => {
            steps.push(Step::Clear(if who == 0 { STANDARD } else { who }));
            steps.push(Step::Set(bits));
        }
    }
}

fn flush_conditional(who: u32, conditional: &mut u32, steps: &mut Vec<Step>) {
    if *conditional != 0 {
        steps.push(Step::SetIfExecutable(if who == 0 { *conditional } else { who & *conditional }));
        *conditional = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes() {
        for (text, old, dir, new) in [
            ("644", 0o777, false, 0o644),
            ("0644", 0o4777, false, 0o644),
            ("4755", 0o600, false, 0o4755),
            ("7777", 0, false, 0o7777),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("go-w", 0o666, false, 0o644),
            ("=", 0o6777, false, 0),
            ("u=", 0o4755, false, 0o055),
            ("go=u", 0o750, false, 0o777),
            ("go=u-w", 0o750, false, 0o755),
            ("g=o", 0o705, false, 0o755),
            ("g-u", 0o770, false, 0o700),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, false, 0o2755),
            ("o+s", 0o755, false, 0o755),
            ("+t", 0o755, true, 0o1755),
            ("u+rw-x", 0o100, false, 0o600),
            ("=rw,+X", 0o755, false, 0o777),
            ("=rw,+X", 0o644, false, 0o666),
            ("-X", 0o755, false, 0o644),
            ("u=rw,g=u,o=g", 0, false, 0o666),
            // Whoever sets the sticky bit without a class speaks of it only (setmode(3)).
            ("+tx", 0o644, false, 0o1644),
            ("u+", 0o644, false, 0o644),
        ] {
            let change = ModeChange::parse(text).unwrap();
            assert_eq!(change.apply(old, dir), new, "{text} on {old:o}: {:o}", change.apply(old, dir));
        }
    }

    #[test]
    fn no_modes() {
        for text in [
            "",
            "u",
            "8",
            "0o644",
            "10000",
            "77777777777",
            "u=rwx,",
            ",",
            "u=rwz",
            "x",
            "rwx",
            "u~x",
            "+x,g",
            "6 4",
        ] {
            assert!(ModeChange::parse(text).is_err(), "{text}");
        }
    }
}
