//! The terminal, taken and given back, and its events.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event};
use ratatui::{DefaultTerminal, Frame};
use tokio::sync::mpsc::UnboundedSender;

use super::update::Message;

/// The terminal in raw mode on its alternate screen, until this is dropped. A panic gives it back before its message
/// is printed (ratatui's hook).
///
/// A terminal that is gone (its window was closed, its connection broke) is left without a word: there is nobody to read
/// one, and whatever is printed ends in a panic.
pub(super) struct Screen {
    /// There until the screen is dropped.
    terminal: Option<DefaultTerminal>,
    closed: Arc<AtomicBool>,
}

/// How long the thread that reads events may take to see that the screen is closed.
const POLL: Duration = Duration::from_millis(100);

impl Screen {
    /// Takes the terminal and sends its events from a thread of its own.
    pub(super) fn open(messages: UnboundedSender<Message>) -> io::Result<Self> {
        let terminal = match ratatui::try_init() {
            Ok(terminal) => terminal,
            Err(error) => {
                // Raw mode may be on already.
                let _ = ratatui::try_restore();
                return Err(error);
            }
        };
        let closed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&closed);
        std::thread::spawn(move || read_events(&messages, &flag));
        Ok(Self { terminal: Some(terminal), closed })
    }

    /// Draws a frame; false when the terminal is gone.
    ///
    /// # Errors
    /// When the terminal is there and cannot be written.
    pub(super) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<bool> {
        let Some(terminal) = &mut self.terminal else { return Ok(false) };
        match terminal.draw(render) {
            Ok(_) => Ok(true),
            Err(_) if !is_there() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether the terminal that this process writes to is still there.
pub(super) fn is_there() -> bool {
    rustix::termios::tcgetwinsize(io::stdout()).is_ok()
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // After a panic the hook has done it; leaving the alternate screen twice would print over the panic's message.
        if !std::thread::panicking() {
            let _ = ratatui::try_restore();
        }
        // The cursor was hidden by drawing. Where it cannot be shown the terminal is gone: its own end would say so on
        // stderr, which is gone with it, and panic.
        if let Some(mut terminal) = self.terminal.take()
            && terminal.show_cursor().is_err()
        {
            std::mem::forget(terminal);
        }
    }
}

fn read_events(messages: &UnboundedSender<Message>, closed: &AtomicBool) {
    while !closed.load(Ordering::Relaxed) {
        let message = match event::poll(POLL) {
            Ok(false) => continue,
            Ok(true) => match event::read() {
                Ok(Event::Key(key)) => Message::Key(key),
                Ok(Event::Resize(..)) => Message::Resized,
                Ok(_) => continue,
                Err(_) => Message::Stop,
            },
            Err(_) => Message::Stop,
        };
        let ends = message == Message::Stop;
        if messages.send(message).is_err() || ends {
            return;
        }
    }
}
