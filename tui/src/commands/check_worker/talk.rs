//! Both sides of a conversation with a worker, shown as it goes, and what is wrong with the worker's.

use std::io::Write;
use std::time::{Duration, Instant};

use search::Architecture;
use search::wire::{CONFIGURE_ID, Hello, PROTOCOL, Reply, Request};
use tui::quantity;

use crate::driver::{Process, Program};

/// How long it may take to leave when its input has ended.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long an answer is waited for that some workers do not give.
const PERHAPS: Duration = Duration::from_secs(5);
/// Characters of a line that are shown.
const SHOWN: usize = 160;
/// The id of a request of a type that no protocol has.
const UNKNOWN: u64 = 900;

pub(super) struct Talk {
    program: Program,
    process: Option<Process>,
    silence: Duration,
    /// Lines that the worker said.
    heard: usize,
    wrong: usize,
}

impl Talk {
    /// Starts the worker.
    ///
    /// # Errors
    /// When the shell cannot be started.
    pub(super) fn start(program: Program, silence: Duration) -> anyhow::Result<Self> {
        let process = Process::start(&program, None)?;
        Ok(Self { program, process: Some(process), silence, heard: 0, wrong: 0 })
    }

    /// Lets the worker go, and starts another one.
    ///
    /// # Errors
    /// When the shell cannot be started.
    pub(super) async fn start_again(&mut self) -> anyhow::Result<()> {
        self.let_go().await;
        show('-', "the worker is started again");
        self.process = Some(Process::start(&self.program, None)?);
        Ok(())
    }

    /// Lets the worker go: how many lines were heard, how much was wrong.
    pub(super) async fn end(mut self) -> (usize, usize) {
        self.let_go().await;
        (self.heard, self.wrong)
    }

    pub(super) fn wrong(&mut self, what: &str) {
        self.wrong += 1;
        show('!', what);
    }

    pub(super) fn remark(what: &str) {
        show('-', what);
    }

    pub(super) async fn ask(&mut self, request: &Request) {
        let line = request.to_line().expect("paths of this program's own are Unicode");
        self.say(&line).await;
    }

    async fn say(&mut self, line: &str) {
        show('>', line);
        if let Some(process) = &mut self.process {
            // one that does not listen is about to end, which is heard next
            process.say(line).await;
        }
    }

    /// The hello of a worker that must answer `duty`; none: there is no talking to it.
    pub(super) async fn hello(&mut self, duty: &str) -> Option<Hello> {
        let reply = self.hear(self.silence, "its hello").await?;
        let Reply::Hello(hello) = reply else {
            self.wrong("the first line must be a hello");
            return None;
        };
        if hello.protocol != PROTOCOL {
            self.wrong(&format!("it speaks protocol {}, and this is {PROTOCOL}", hello.protocol));
            return None;
        }
        if !hello.can.iter().any(|can| can == duty) {
            self.wrong(&format!("`can` lacks \"{duty}\", without which no campaign takes it"));
        }
        for (key, value) in [("worker", &hello.worker), ("device", &hello.device)] {
            if value.trim().is_empty() {
                self.wrong(&format!("`{key}` is empty: results are kept under it"));
            }
        }
        Some(hello)
    }

    /// The first line of a worker that says nothing before it is asked.
    pub(super) async fn first(&mut self) -> Option<Reply> {
        self.hear(self.silence, "its answer").await
    }

    /// The final answer to a request; progress before it goes to `progress`, which says what is wrong with it.
    pub(super) async fn answer(
        &mut self,
        id: u64,
        mut progress: impl FnMut(&search::wire::Progress) -> Option<String>,
    ) -> Option<Reply> {
        loop {
            let reply = self.hear(self.silence, &format!("the answer to {id}")).await?;
            match (&reply, reply.id()) {
                (_, Some(other)) if other == CONFIGURE_ID => {
                    self.wrong("it cannot use its configuration: a campaign would end here");
                    return None;
                }
                (_, Some(other)) if other != id => self.wrong(&format!(
                    "this is no answer to {id}: every request has one, with its id"
                )),
                (_, None) => self.wrong(&format!("this is no answer to {id}")),
                (Reply::Progress(of), _) => {
                    if let Some(what) = progress(of) {
                        self.wrong(&what);
                    }
                }
                _ => return Some(reply),
            }
        }
    }

    /// Asks something that no protocol has: it must live on, and should say that it failed.
    pub(super) async fn unknown(&mut self) {
        self.say(&format!("{{\"type\":\"of_a_later_version\",\"id\":{UNKNOWN}}}")).await;
        match self.perhaps(PERHAPS).await {
            Heard::Reply(Reply::Failed(refusal) | Reply::Infeasible(refusal))
                if refusal.id == UNKNOWN => {}
            Heard::Nothing => Self::remark(
                "a request of an unknown type was passed over; `failed` with its id would be better",
            ),
            Heard::End(how) => {
                self.wrong(&format!("a request of an unknown type ended it: it {how}"));
            }
            Heard::Reply(_) | Heard::Bad => {
                self.wrong("a request of an unknown type is answered by `failed` with its id");
            }
        }
    }

    /// The next reply; none where there will be none, which is said.
    async fn hear(&mut self, within: Duration, what: &str) -> Option<Reply> {
        loop {
            match self.perhaps(within).await {
                Heard::Reply(reply) => return Some(reply),
                Heard::Bad => {}
                Heard::Nothing if self.process.is_some() => {
                    self.wrong(&format!(
                        "{what} did not come within {}: a campaign would end the worker",
                        quantity::duration(within.as_secs_f64())
                    ));
                    return None;
                }
                Heard::Nothing => return None,
                Heard::End(how) => {
                    self.wrong(&format!("it {how} before {what}"));
                    return None;
                }
            }
        }
    }

    /// What comes within a while; what is no message is said to be wrong.
    pub(super) async fn perhaps(&mut self, within: Duration) -> Heard {
        let Some(process) = &mut self.process else { return Heard::Nothing };
        match tokio::time::timeout(within, process.line()).await {
            Err(_) => Heard::Nothing,
            Ok(None) => {
                let process = self.process.take().expect("it was there");
                let (how, log) = process.end().await;
                for line in log.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev() {
                    show(' ', line);
                }
                Heard::End(how)
            }
            Ok(Some(line)) => {
                self.heard += 1;
                show('<', &line);
                match Reply::parse(&line) {
                    Ok(reply) => Heard::Reply(reply),
                    Err(error) => {
                        self.wrong(&error.reason);
                        Heard::Bad
                    }
                }
            }
        }
    }

    /// Ends the input: nothing more is to be said, and it must leave.
    async fn let_go(&mut self) {
        let Some(process) = &mut self.process else { return };
        show('>', "(the end of its input)");
        process.hang_up();
        let begin = Instant::now();
        loop {
            match self.perhaps(GOODBYE.saturating_sub(begin.elapsed())).await {
                Heard::Reply(Reply::Progress(_)) | Heard::Bad => {}
                Heard::Reply(_) => self.wrong("nobody waits for this: nothing was asked"),
                Heard::Nothing => {
                    self.wrong(
                        "it does not leave within 2 s of the end of its input: it is killed",
                    );
                    break;
                }
                Heard::End(how) => {
                    if how != "exited with status 0" {
                        Self::remark(&format!("it {how} at the end of its input"));
                    }
                    break;
                }
            }
        }
        if let Some(process) = self.process.take() {
            process.end().await;
        }
    }
}

/// What came of waiting.
pub(super) enum Heard {
    Reply(Reply),
    /// No message.
    Bad,
    Nothing,
    /// The worker is gone; how.
    End(String),
}

fn show(mark: char, text: &str) {
    let text = quantity::shortened(&tui::printable(text), SHOWN);
    let _ = writeln!(std::io::stdout(), "{mark} {text}");
}

/// The stacks that are asked about: one of plain attention, one of several mixers.
const STACKS: [&str; 2] = [
    "d=32,vocab=256,tied | attn(h=2,kv=2,k=16)+ffn(64)",
    "d=32,vocab=256,tied | gdn(h=2,k=16,v=16)+ffn(64) | swa(h=2,kv=1,k=16,w=16) | m2(h=4,p=16,n=16)+ffn(64)",
];

pub(super) fn stacks() -> [Architecture; 2] {
    STACKS.map(|text| text.parse().expect("stacks of this file"))
}
