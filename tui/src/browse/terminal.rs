//! The terminal, taken and given back, and its events.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use tokio::sync::mpsc::UnboundedSender;

use super::update::Message;

/// The terminal in raw mode on its alternate screen, until this is dropped. A panic gives it back before its message
/// is printed (ratatui's hook).
pub(super) struct Screen {
    pub(super) terminal: DefaultTerminal,
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
                ratatui::restore();
                return Err(error);
            }
        };
        let closed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&closed);
        std::thread::spawn(move || read_events(&messages, &flag));
        Ok(Self { terminal, closed })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // After a panic the hook has done it; leaving the alternate screen twice would print over the panic's message.
        if !std::thread::panicking() {
            ratatui::restore();
        }
        // The cursor was hidden by drawing; nothing is left to do about a terminal that is gone.
        let _ = execute!(io::stdout(), Show);
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
