//! Rows redrawn in place, seen on a screen.

use super::screen::Screen;
use super::{at, log, status, vertex, vertexes, warning};
use crate::{Display, DisplayOptions, Mode, Update, VertexUpdate};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// A screen that is also the writer and the size of a display.
#[derive(Clone)]
struct Terminal(Arc<Mutex<(Screen, (u16, u16))>>);

impl Terminal {
    fn new(width: u16, height: u16) -> Self {
        let screen = Screen::new(width.into(), height.into());
        Self(Arc::new(Mutex::new((screen, (width, height)))))
    }

    fn resize(&self, width: u16, height: u16) {
        let mut inner = self.0.lock().unwrap();
        inner.0.resize(width.into(), height.into());
        inner.1 = (width, height);
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().0.text()
    }

    fn display(&self, colors: bool) -> Display<Self> {
        let size = self.clone();
        let defaults = DisplayOptions::default();
        let options = DisplayOptions {
            size: Box::new(move || Some(size.0.lock().unwrap().1)),
            colors: defaults.colors.clone().filter(|_| colors),
            ..defaults
        };
        Display::new(Mode::Tty, true, self.clone(), options).unwrap()
    }
}

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.0.lock().unwrap();
        inner.0.write(std::str::from_utf8(bytes).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn play(display: &mut Display<Terminal>, updates: Vec<(i64, Update)>) {
    for (ms, update) in updates {
        display.update(update, at(ms)).unwrap();
    }
}

const LONG: &str = "[stage-1 4/9] RUN apt-get update && apt-get install -y a-rather-long-package-name";

fn finished(name: &str, cached: bool) -> VertexUpdate {
    VertexUpdate { cached, ..vertex(name, Some(0), Some(0)) }
}

#[test]
fn a_build() {
    let terminal = Terminal::new(60, 20);
    let mut display = terminal.display(true);
    play(
        &mut display,
        vec![
            (
                0,
                vertexes(vec![
                    vertex("[1/2] FROM alpine", Some(0), None),
                    vertex("[2/2] RUN make", None, None),
                ]),
            ),
            (160, status("[1/2] FROM alpine", "sha256:12", (1_500_000, 3_000_000), 160, None)),
        ],
    );
    assert_eq!(
        terminal.text(),
        "[+] Building 0.2s (0/2)\n\
         \x20=> [1/2] FROM alpine                                  0.2s\n\
         \x20=> => sha256:12 1.50MB / 3.00MB                       0.2s"
    );
    play(
        &mut display,
        vec![
            (1200, status("[1/2] FROM alpine", "sha256:12", (3_000_000, 3_000_000), 1200, Some(1200))),
            (1300, vertexes(vec![vertex("[1/2] FROM alpine", Some(0), Some(1300))])),
            (1500, vertexes(vec![vertex("[2/2] RUN make", Some(1500), None)])),
            (1700, log("[2/2] RUN make", "cc a.c\ncc b.c\r\nprogress 1%\rprogress 2%", 1600)),
        ],
    );
    assert_eq!(
        terminal.text(),
        "[+] Building 1.7s (1/2)\n\
         \x20=> [1/2] FROM alpine                                  1.3s\n\
         \x20=> => sha256:12 3.00MB / 3.00MB                       1.2s\n\
         \x20=> [2/2] RUN make                                     0.2s\n\
         \x20=> => # cc a.c\n\
         \x20=> => # cc b.c\n\
         \x20=> => # progress 2%"
    );
    play(&mut display, vec![(3000, vertexes(vec![vertex("[2/2] RUN make", Some(1500), Some(3000))]))]);
    display.finish(at(3000)).unwrap();
    assert_eq!(
        terminal.text(),
        "[+] Building 3.0s (2/2) FINISHED\n\
         \x20=> [1/2] FROM alpine                                  1.3s\n\
         \x20=> => sha256:12 3.00MB / 3.00MB                       1.2s\n\
         \x20=> [2/2] RUN make                                     1.5s"
    );
    let inner = terminal.0.lock().unwrap();
    assert!(!inner.0.cursor_hidden && !inner.0.overflows());
}

#[test]
fn ends_of_rows() {
    let terminal = Terminal::new(50, 20);
    let mut display = terminal.display(false);
    let with_error = |name: &str, error: &str| VertexUpdate { error: error.into(), ..finished(name, false) };
    play(
        &mut display,
        vec![
            (
                0,
                vertexes(vec![
                    finished("a", true),
                    with_error("b", "exit code: 1"),
                    with_error("c", "x: context canceled"),
                    vertex("d", Some(0), None),
                ]),
            ),
            (200, warning("a", "careful")),
            (400, log("b", "why\n", 400)),
        ],
    );
    display.finish(at(400)).unwrap();
    assert_eq!(
        terminal.text(),
        "[+] Building 0.4s (3/4)\n\
         \x20=> CACHED a                                 0.0s\n\
         \x20=> WARN: careful                            0.0s\n\
         \x20=> ERROR b                                  0.0s\n\
         \x20=> CANCELED c                               0.0s\n\
         \x20=> d                                        0.4s\n\
         ------\n > b:\n0.400 why\n------"
    );
}

#[test]
fn what_ran_when_the_build_was_given_up_is_canceled() {
    let terminal = Terminal::new(50, 20);
    let mut display = terminal.display(false);
    play(
        &mut display,
        vec![
            (0, vertexes(vec![finished("a", false), vertex("b", Some(0), None)])),
            (100, log("b", "x\n", 100)),
        ],
    );
    display.cancel(at(300)).unwrap();
    display.finish(at(400)).unwrap();
    assert_eq!(
        terminal.text(),
        "[+] Building 0.4s (2/2) FINISHED\n\
         \x20=> a                                        0.0s\n\
         \x20=> CANCELED b                               0.3s"
    );
}

#[test]
fn open_rows_stay_visible_on_a_low_screen() {
    let terminal = Terminal::new(40, 6);
    let mut display = terminal.display(false);
    let mut list = vec![vertex("running", Some(0), None)];
    list.extend((0..20).map(|i| finished(&format!("step {i}"), false)));
    play(&mut display, vec![(0, vertexes(list))]);
    let text = terminal.text();
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains("=> running"), "{text}");
    assert!(text.contains("step 19") && !text.contains("step 16 "), "{text}");
    display.finish(at(0)).unwrap();
    assert_eq!(terminal.text().lines().count(), 22, "the last frame has every row");
}

#[test]
fn resizes_leave_one_frame() {
    let sizes = [(80, 24), (30, 24), (200, 12), (20, 24), (61, 9), (45, 30)];
    let terminal = Terminal::new(80, 24);
    let mut display = terminal.display(true);
    play(&mut display, vec![(0, vertexes(vec![vertex(LONG, Some(0), None), vertex("b", Some(0), None)]))]);
    for (i, (width, height)) in sizes.into_iter().cycle().take(60).enumerate() {
        let ms = (i as i64 + 1) * 200;
        // A frame that no longer fits is scrolled away, and what is gone cannot be drawn over.
        if terminal.0.lock().unwrap().0.rows_at(width.into()) < height.into() {
            terminal.resize(width, height);
        }
        display.update(log(LONG, "some text that is long enough to wrap\n", ms), at(ms)).unwrap();
        assert_eq!(terminal.text().matches("[+]").count(), 1, "{width}x{height}: {}", terminal.text());
    }
    display.finish(at(15_000)).unwrap();
    assert_eq!(terminal.text().matches("[+] Building 15.0s").count(), 1);
}

#[test]
fn any_size_is_drawn_within_its_bounds() {
    for (width, height) in [(1, 1), (1, 2), (2, 3), (5, 3), (12, 5), (16, 24), (20, 10), (300, 3), (40, 1)] {
        let terminal = Terminal::new(width, height);
        let mut display = terminal.display(true);
        play(
            &mut display,
            vec![(0, vertexes(vec![vertex(LONG, Some(0), None), vertex("b", Some(0), Some(1))]))],
        );
        play(
            &mut display,
            vec![(200, log(LONG, "1\n2\n3\n4\n5\n6\n7\n8\n", 200)), (400, status("b", "s", (1, 9), 1, None))],
        );
        let inner = terminal.0.lock().unwrap();
        assert!(!inner.0.overflows(), "{width}x{height}: {}", inner.0.text());
        assert!(inner.0.rows_at(width.into()) <= height.into(), "{width}x{height}: {}", inner.0.text());
    }
}

#[test]
fn clocks_may_differ() {
    let terminal = Terminal::new(40, 10);
    let mut display = terminal.display(false);
    play(&mut display, vec![(100_000, vertexes(vec![vertex("a", Some(0), None)]))]);
    display.refresh(at(102_000)).unwrap();
    assert_eq!(terminal.text(), "[+] Building 2.0s (0/1)\n => a                              2.0s");
}
