//! `browse` on a terminal of its own, which is closed under it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::harness::{Running, World};

/// The side of a terminal that a window would hold, and `browse` on the other one with its first screen drawn.
fn browse(world: &World) -> (File, Running) {
    let window = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .expect("a pseudo-terminal");
    grantpt(&window).expect("it is ours");
    unlockpt(&window).expect("it is ours");
    tcsetwinsize(&window, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 })
        .expect("it is a terminal");
    let name = ptsname(&window, Vec::new()).expect("it has a name");
    let name = name.to_str().expect("its name is plain").to_owned();
    let side = || -> Stdio {
        let file = File::options().read(true).write(true).open(&name).expect("it is unlocked");
        OwnedFd::from(file).into()
    };
    let mut command = world.command(&["browse"]);
    command.env("TERM", "xterm").stdin(side()).stdout(side()).stderr(side());
    let run = Running(command.spawn().expect("the program starts"));
    drop(command);
    let mut window = File::from(window);
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    let begin = Instant::now();
    while !String::from_utf8_lossy(&seen).contains("candidates") {
        assert!(begin.elapsed() < Duration::from_secs(20), "nothing is drawn");
        let read = window.read(&mut piece).expect("it is open");
        seen.extend(&piece[..read]);
    }
    (window, run)
}

#[test]
fn a_terminal_that_is_closed_ends_it_quietly() {
    let world = World::new("closed_terminal");
    assert_eq!(world.say(&["run"]).code, 0);
    // The signal that a shell's jobs get, before or after the terminal is gone; and none at all.
    for (closed, signalled) in [(true, true), (false, true), (true, false)] {
        let (window, mut run) = browse(&world);
        let window = if closed {
            drop(window);
            None
        } else {
            Some(window)
        };
        if signalled {
            run.signal(rustix::process::Signal::HUP);
        }
        let begin = Instant::now();
        while run.is_alive() {
            assert!(begin.elapsed() < Duration::from_secs(10), "closed {closed}, {signalled}");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(run.code(), 0, "closed {closed}, signalled {signalled}");
        drop(window);
    }
    // A key ends it as before, and the terminal is given back.
    let (mut window, run) = browse(&world);
    window.write_all(b"q").expect("it is open");
    let mut rest = Vec::new();
    // An error is the end: the other side is closed.
    let _ = window.read_to_end(&mut rest);
    assert_eq!(run.code(), 0);
    let rest = String::from_utf8_lossy(&rest).into_owned();
    assert!(rest.contains("\u{1b}[?1049l") && rest.contains("\u{1b}[?25h"), "{rest:?}");
}
