//! plain, rawjson and the silent modes.

use super::{at, log, member, show, status, vertex, vertexes, warning};
use crate::{Display, DisplayOptions, Mode, Next, Update, VertexUpdate};

fn plain(updates: Vec<(i64, Update)>) -> String {
    show(Mode::Plain, DisplayOptions::default(), updates)
}

fn cached(v: VertexUpdate) -> VertexUpdate {
    VertexUpdate { cached: true, ..v }
}

fn failed(v: VertexUpdate, error: &str) -> VertexUpdate {
    VertexUpdate { error: error.into(), ..v }
}

#[test]
fn a_build_that_fails() {
    let run = "[2/4] RUN cmd";
    let other = "[4/4] RUN other";
    let options = DisplayOptions { description: "building with kiln".into(), ..DisplayOptions::default() };
    let out = show(
        Mode::Plain,
        options,
        vec![
            (0, vertexes(vec![vertex("[internal] load", Some(0), None), vertex(run, None, None)])),
            (200, status("[internal] load", "transferring dockerfile:", (123, 0), 5, Some(5))),
            (400, vertexes(vec![vertex("[internal] load", Some(0), Some(20))])),
            (600, vertexes(vec![vertex(run, Some(600), None)])),
            (800, log(run, "log line\n", 723)),
            (1000, vertexes(vec![cached(vertex("[3/4] COPY a b", Some(900), Some(900)))])),
            (1200, vertexes(vec![vertex(other, Some(1100), None)])),
            (1400, warning(run, "text")),
            (5400, log(run, "more log\n", 5311)),
            (
                5600,
                vertexes(vec![
                    failed(vertex(run, Some(600), Some(5500)), "process \"x\" did not complete"),
                    failed(vertex(other, Some(1100), Some(5550)), "rpc error: context canceled"),
                ]),
            ),
        ],
    );
    assert_eq!(
        out,
        "#0 building with kiln\n\n\
         #1 [internal] load\n#1 transferring dockerfile: 123B done\n#1 DONE 0.0s\n\n\
         #2 [2/4] RUN cmd\n#2 0.123 log line\n#2 ...\n\n\
         #3 [3/4] COPY a b\n#3 CACHED\n\n\
         #4 [4/4] RUN other\n#4 CANCELED\n\n\
         #2 [2/4] RUN cmd\n#2 WARN: text\n#2 4.711 more log\n#2 ERROR: process \"x\" did not complete\n\
         ------\n > [2/4] RUN cmd:\n0.123 log line\n4.711 more log\n------\n"
    );
}

#[test]
fn counters() {
    let name = "pull";
    let out = plain(vec![
        (0, vertexes(vec![vertex(name, Some(0), None)])),
        (200, status(name, "sha256:1", (0, 2_000_000), 200, None)),
        (400, status(name, "sha256:1", (50_000, 2_000_000), 400, None)),
        (600, status(name, "sha256:1", (1_234_567, 2_000_000), 600, None)),
        (6000, status(name, "sha256:1", (1_234_568, 2_000_000), 6000, None)),
        (6200, status(name, "sha256:1", (2_000_000, 2_000_000), 6200, Some(6150))),
        (6400, vertexes(vec![vertex(name, Some(0), Some(6300))])),
    ]);
    assert_eq!(
        out,
        "#1 pull\n#1 sha256:1 0B / 2.00MB 0.2s\n#1 sha256:1 1.23MB / 2.00MB 0.6s\n\
         #1 sha256:1 1.23MB / 2.00MB 6.0s\n#1 sha256:1 2.00MB / 2.00MB 6.2s done\n#1 DONE 6.3s\n"
    );
}

#[test]
fn unfinished_lines_are_continued() {
    let out = plain(vec![
        (0, vertexes(vec![vertex("a", Some(0), None)])),
        (200, log("a", "one\ntw", 1200)),
        (400, log("a", "o\nthree", 12_000)),
        (600, status("a", "s", (1, 0), 10, Some(10))),
        (800, log("a", "!", 120_000)),
        (1000, vertexes(vec![vertex("a", Some(0), Some(1000))])),
    ]);
    assert_eq!(
        out,
        "#1 a\n#1 1.200 one\n#1 1.200 two\n#1 12.00 three\n#1 s 1B done\n#1 12.00 three!\n#1 DONE 1.0s\n"
    );
}

#[test]
fn end_of_output_ends_a_line() {
    let out = plain(vec![(0, vertexes(vec![vertex("a", Some(0), None)])), (200, log("a", "dots...", 100))]);
    assert_eq!(out, "#1 a\n#1 0.100 dots...\n");
}

#[test]
fn the_floor_changes_hands() {
    let mut updates = vec![(0, vertexes(vec![vertex("a", Some(0), None), vertex("b", Some(0), None)]))];
    updates.push((200, log("a", "1\n", 200)));
    updates.push((400, log("b", "2\n", 400)));
    updates.push((600, log("a", "3\n", 600)));
    updates.push((11_000, log("a", "4\n", 11_000)));
    let out = plain(updates);
    assert!(out.starts_with("#1 a\n") || out.starts_with("#1 b\n"), "{out}");
    assert_eq!(out.matches("...\n").count(), 1, "the silent one is shown after ten seconds: {out}");
    assert!(out.contains("0.400 2\n") && out.contains("11.00 4\n"), "{out}");
}

#[test]
fn reruns_are_summed_and_overlaps_are_not() {
    let out = plain(vec![
        (0, vertexes(vec![vertex("a", Some(0), Some(1000))])),
        (2000, vertexes(vec![vertex("a", Some(3000), Some(4500))])),
        (4000, vertexes(vec![vertex("a", Some(4000), Some(5000))])),
    ]);
    assert_eq!(out, "#1 a\n#1 DONE 1.0s\n\n#1 a\n#1 DONE 2.5s\n\n#1 a\n#1 DONE 3.0s\n");
}

#[test]
fn groups_are_one_row() {
    let weak = member(vertex("mkdir", Some(0), Some(5)), true);
    let out = plain(vec![
        (0, vertexes(vec![weak.clone()])),
        (200, vertexes(vec![member(vertex("copy", Some(100), None), false)])),
        (400, vertexes(vec![member(vertex("copy", Some(100), Some(400)), false)])),
    ]);
    assert_eq!(out, "#1 LINK COPY\n#1 DONE 0.3s\n");
    assert_eq!(plain(vec![(0, vertexes(vec![weak]))]), "", "weak members alone show nothing");
}

#[test]
fn names_cannot_steer_the_terminal() {
    let name = format!("RUN \x1b[2J{}", "x".repeat(100));
    let v = vertexes(vec![vertex(&name, Some(0), Some(0))]);
    let out = plain(vec![(0, v.clone())]);
    assert!(out.starts_with("#1 RUN [2Jxxx") && out.contains(&"x".repeat(100)));
    let options = DisplayOptions { truncate_names: true, ..DisplayOptions::default() };
    let out = show(Mode::Plain, options, vec![(0, v)]);
    assert_eq!(out.lines().next().unwrap(), format!("#1 RUN [2J{}...", "x".repeat(65)));
}

#[test]
fn errors_cannot_steer_the_terminal() {
    let v = failed(vertex("RUN x", Some(0), Some(100)), "no\x1b]0;title\x07 \u{9b}2J\rsuch\nfile");
    let out = plain(vec![(0, vertexes(vec![v]))]);
    assert!(out.contains("#1 ERROR: no]0;title 2Jsuch\nfile\n"), "{out:?}");
}

#[test]
fn failed_steps_show_ten_lines() {
    let lines: String = (0..25).map(|i| format!("l{i}\n")).collect();
    let out = plain(vec![
        (0, vertexes(vec![vertex("a", Some(0), None)])),
        (200, log("a", &lines, 100)),
        (400, vertexes(vec![failed(vertex("a", Some(0), Some(300)), "boom")])),
    ]);
    let tail = out.split("------\n").nth(1).unwrap();
    assert_eq!(tail.lines().count(), 11);
    assert!(tail.starts_with(" > a:\n0.100 l15\n") && tail.ends_with("l24\n"), "{tail}");
}

#[test]
fn updates_between_frames_are_held_back() {
    let mut out = Vec::new();
    let mut display = Display::new(Mode::Plain, false, &mut out, DisplayOptions::default()).unwrap();
    display.update(vertexes(vec![vertex("a", Some(0), None)]), at(0)).unwrap();
    display.update(vertexes(vec![vertex("a", Some(0), Some(50))]), at(50)).unwrap();
    display.refresh(at(200)).unwrap();
    display.update(warning("a", "w"), at(210)).unwrap();
    let warnings = display.finish(at(220)).unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!(String::from_utf8(out).unwrap(), "#1 a\n#1 DONE 0.1s\n\n#1 a\n#1 WARN: w\n#1 DONE 0.1s\n");
}

#[test]
fn raw_json_is_one_object_per_update() {
    let out = show(
        Mode::RawJson,
        DisplayOptions::default(),
        vec![
            (0, vertexes(vec![cached(vertex("a", Some(0), Some(1)))])),
            (1, Update::default()),
            (2, log("a", "x", 2)),
        ],
    );
    let a = super::digest("a");
    assert_eq!(
        out,
        format!(
            "{{\"vertexes\":[{{\"digest\":\"{a}\",\"name\":\"a\",\"started\":\"2026-01-02T03:04:05Z\",\
             \"completed\":\"2026-01-02T03:04:05.001Z\",\"cached\":true}}]}}\n\
             {{\"logs\":[{{\"vertex\":\"{a}\",\"stream\":1,\"data\":\"eA==\",\
             \"timestamp\":\"2026-01-02T03:04:05.002Z\"}}]}}\n"
        )
    );
}

#[test]
fn silent_modes_still_collect_warnings() {
    for mode in [Mode::Quiet, Mode::None] {
        let mut out = Vec::new();
        let display = Display::new(mode, true, &mut out, DisplayOptions::default()).unwrap();
        let mut updates = vec![vertexes(vec![vertex("a", Some(0), Some(1))]), warning("a", "w")].into_iter();
        let warnings = display.run(|_| updates.next().map_or(Next::End, Next::Update), || at(0)).unwrap();
        assert_eq!((warnings.len(), out.len()), (1, 0));
    }
}

#[test]
fn a_terminal_gets_colors_of_steps_and_nothing_else_from_them() {
    let updates = || {
        vec![
            (0, vertexes(vec![vertex("a", Some(0), None)])),
            (200, log("a", "\x1b[31mre", 100)),
            (400, log("a", "d\x1b[2J\x1b]0;title\x07 x\nlast\n", 300)),
            (600, vertexes(vec![failed(vertex("a", Some(0), Some(500)), "boom")])),
        ]
    };
    let show = |mode, is_terminal| {
        let mut out = Vec::new();
        let mut display = Display::new(mode, is_terminal, &mut out, DisplayOptions::default()).unwrap();
        for (ms, update) in updates() {
            display.update(update, at(ms)).unwrap();
        }
        display.finish(at(600)).unwrap();
        String::from_utf8(out).unwrap()
    };
    let red = "\x1b[31mred x\x1b[0m\n";
    assert_eq!(
        show(Mode::Plain, true),
        format!(
            "#1 a\n#1 0.100 {red}#1 0.300 last\n#1 ERROR: boom\n------\n > a:\n0.100 {red}0.300 last\n------\n"
        )
    );
    assert_eq!(show(Mode::Quiet, true), format!("------\n > a:\n0.100 {red}0.300 last\n------\n"));
    assert!(show(Mode::Plain, false).contains("#1 0.100 \x1b[31mred\x1b[2J\x1b]0;title\x07 x\n"));
}

#[test]
fn quiet_shows_what_failed() {
    let updates = || {
        vec![
            (0, vertexes(vec![vertex("a", Some(0), None)])),
            (200, log("a", "why\n", 100)),
            (400, vertexes(vec![failed(vertex("a", Some(0), Some(300)), "boom")])),
        ]
    };
    let out = show(Mode::Quiet, DisplayOptions::default(), updates());
    assert_eq!(out, "------\n > a:\n0.100 why\n------\n");
    assert_eq!(show(Mode::None, DisplayOptions::default(), updates()), "");
}

#[test]
fn a_failed_step_with_an_open_counter_ends() {
    let out = plain(vec![
        (0, vertexes(vec![vertex("export", Some(0), None)])),
        (200, status("export", "copying files", (0, 0), 150, None)),
        (210, vertexes(vec![failed(vertex("export", Some(0), Some(205)), "not a directory")])),
    ]);
    assert_eq!(
        out,
        "#1 export\n#1 copying files 0.1s\n#1 ERROR: not a directory\n------\n > export:\n------\n"
    );
    // Both at once.
    let mut at_once = status("export", "copying files", (0, 0), 0, None);
    at_once.vertexes = vec![failed(vertex("export", Some(0), Some(205)), "not a directory")];
    let out = plain(vec![(0, at_once)]);
    assert!(out.contains("#1 copying files\n#1 ERROR: not a directory\n"), "{out}");
}

#[test]
fn the_log_of_a_failure_is_what_a_terminal_leaves() {
    let out = show(
        Mode::Quiet,
        DisplayOptions::default(),
        vec![
            (0, vertexes(vec![vertex("RUN pip", Some(0), None)])),
            (100, log("RUN pip", "dos line\r\n 10%\r 20%\rdone\n\rhalf", 50)),
            (200, vertexes(vec![failed(vertex("RUN pip", Some(0), Some(150)), "exit code: 1")])),
        ],
    );
    assert_eq!(out, "------\n > RUN pip:\n0.050 dos line\n0.050 done\n0.050 half\n------\n");
}

#[test]
fn a_counter_of_the_same_name_begins_silently() {
    let out = plain(vec![
        (0, vertexes(vec![vertex("a", Some(0), None)])),
        (200, status("a", "transferring context:", (2, 0), 5, Some(5))),
        (400, vertexes(vec![vertex("a", Some(0), Some(20)), vertex("b", Some(30), None)])),
        (600, status("b", "transferring context:", (0, 0), 40, None)),
        (800, status("b", "transferring context:", (7, 0), 40, Some(45))),
        (1000, vertexes(vec![vertex("b", Some(30), Some(50))])),
    ]);
    assert_eq!(
        out,
        "#1 a\n#1 transferring context: 2B done\n#1 DONE 0.0s\n\n#2 b\n#2 transferring context: 7B 0.0s done\n#2 DONE 0.0s\n"
    );
}

#[test]
fn raw_json_is_safe_inside_of_html() {
    let out = show(
        Mode::RawJson,
        DisplayOptions::default(),
        vec![(0, vertexes(vec![vertex("RUN a <b> && c", None, None)]))],
    );
    assert!(out.contains("RUN a \\u003cb\\u003e \\u0026\\u0026 c"), "{out}");
}
