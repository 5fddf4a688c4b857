//! The loop around the functional core.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use db::Store;
use db::snapshot::{Campaign, Candidate, Snapshot};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::state::State;
use super::terminal::{Screen, is_there};
use super::update::{Effect, Message, update};
use super::view::view;
use crate::theme::Theme;

/// Writes the stack of a candidate to a file and says which.
pub type Export = Box<dyn Fn(&Snapshot, &Candidate) -> anyhow::Result<PathBuf>>;

/// How often the store is asked whether something changed.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How often it is looked whether the terminal is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Reading takes at most one in so many parts of the time.
const SHARE: u32 = 4;

/// Shows the screens until the user leaves or a signal asks for it. `store` is open for reading; `campaign` is opened
/// at once if it is given.
///
/// # Errors
/// When standard output is no terminal, there is no such campaign, or the terminal fails.
pub async fn run(store: Store, campaign: Option<String>, export: Export) -> anyhow::Result<()> {
    anyhow::ensure!(
        std::io::stdout().is_terminal() && std::io::stdin().is_terminal(),
        "browse needs a terminal; `deltafront show` and `deltafront list` print"
    );
    if let Some(name) = &campaign {
        store.campaign(name).await?;
    }
    let (messages, mut inbox) = unbounded_channel();
    let start = Followed { campaign: campaign.clone(), selected: None };
    let (follow, followed) = watch::channel(start);
    let to_screens = messages.clone();
    // On a thread of its own: reading a large campaign keeps no key waiting.
    let reader = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || reader.block_on(watch_store(store, followed, to_screens)));
    tokio::spawn(watch_signals(messages.clone()));
    tokio::spawn(watch_terminal(messages.clone()));

    let mut state = State::new(Theme::from_env(), campaign);
    let mut screen = Screen::open(messages).context("cannot take over the terminal")?;
    loop {
        let is_drawn =
            screen.draw(|frame| view(&state, frame)).context("cannot draw on the terminal")?;
        if !is_drawn {
            return Ok(());
        }
        // While nothing comes, what keys to come need is prepared, in parts that keep none of them waiting.
        let first = loop {
            match inbox.try_recv() {
                Err(TryRecvError::Empty) if state.prepare() => tokio::task::yield_now().await,
                Err(TryRecvError::Empty) => break inbox.recv().await,
                Ok(message) => break Some(message),
                Err(TryRecvError::Disconnected) => break None,
            }
        };
        let Some(first) = first else { return Ok(()) };
        // What has come in since is shown in one go.
        let mut next = Some(first);
        while let Some(message) = next {
            for effect in update(&mut state, message) {
                match effect {
                    Effect::Quit => return Ok(()),
                    Effect::Follow(campaign) => {
                        follow.send_replace(Followed { campaign, selected: None });
                    }
                    Effect::Export { number } => {
                        let result = write_stack(&state, number, &export);
                        update(&mut state, Message::Exported(result));
                    }
                }
            }
            next = inbox.try_recv().ok();
        }
        follow.send_if_modified(|followed| {
            let before = std::mem::replace(&mut followed.selected, state.selected);
            before != followed.selected
        });
    }
}

fn write_stack(state: &State, number: u32, export: &Export) -> Result<String, String> {
    let snapshot = state.snapshot.as_ref().ok_or("no campaign is open")?;
    let candidate = snapshot.candidates.iter().find(|candidate| candidate.row.number == number);
    let candidate = candidate.ok_or_else(|| format!("there is no candidate {number}"))?;
    export(snapshot, candidate)
        .map(|path| path.display().to_string())
        .map_err(|error| format!("{error:#}"))
}

async fn watch_signals(messages: UnboundedSender<Message>) {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = kinds.map(signal) else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
    // Only fails when the screens are gone already.
    let _ = messages.send(Message::Stop);
}

/// A terminal that is closed need not send a signal, and whoever reads its keys never hears of it.
async fn watch_terminal(messages: UnboundedSender<Message>) {
    while is_there() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    // Only fails when the screens are gone already.
    let _ = messages.send(Message::Stop);
}

/// What the screens show.
#[derive(Debug, Clone, PartialEq)]
struct Followed {
    /// The campaign; none: the list of them.
    campaign: Option<String>,
    /// The candidate of which all is shown.
    selected: Option<u32>,
}

/// What was last sent of the store.
#[derive(PartialEq)]
enum Sent {
    Nothing,
    Campaigns(Vec<Campaign>),
    Revision(i64),
    Trouble(String),
}

/// Asks the store for what is followed, and sends it when it has changed; ends with the screens.
async fn watch_store(
    mut store: Store,
    mut followed: watch::Receiver<Followed>,
    messages: UnboundedSender<Message>,
) {
    let mut sent = Sent::Nothing;
    // Of which candidate all was sent last, and of which revision.
    let mut detailed = None;
    let mut following = followed.borrow().campaign.clone();
    let mut next_look = Instant::now();
    loop {
        let target = followed.borrow_and_update().clone();
        if target.campaign != following {
            following.clone_from(&target.campaign);
            (sent, detailed, next_look) = (Sent::Nothing, None, Instant::now());
        }
        if next_look <= Instant::now() {
            let begin = Instant::now();
            let (now, message) = match store.refresh().await {
                Ok(is_another) => {
                    if is_another {
                        // Perhaps a file whose revisions are those of another.
                        (sent, detailed) = (Sent::Nothing, None);
                    }
                    let glance = match (&target.campaign, &sent) {
                        (Some(name), Sent::Nothing) => store.glance(name).await.ok().flatten(),
                        _ => None,
                    };
                    if let Some(glance) = glance
                        && messages.send(Message::Glance(Box::new(glance))).is_err()
                    {
                        return;
                    }
                    read(&store, target.campaign.as_deref(), &sent).await
                }
                Err(error) => trouble(&error),
            };
            if now != sent {
                sent = now;
                if message.is_some_and(|message| messages.send(message).is_err()) {
                    return;
                }
            }
            // What takes long to read is read less often.
            next_look = Instant::now() + ASK_EVERY.max(SHARE * begin.elapsed());
        }
        if let (Some(campaign), Some(number), Sent::Revision(revision)) =
            (target.campaign, target.selected, &sent)
            && detailed != Some((number, *revision))
            && let Ok(Some(row)) = store.candidate(&campaign, number).await
        {
            detailed = Some((number, *revision));
            if messages.send(Message::Details { campaign, row: Box::new(row) }).is_err() {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until(next_look.into()) => {}
            changed = followed.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn read(store: &Store, target: Option<&str>, sent: &Sent) -> (Sent, Option<Message>) {
    let result = match target {
        None => store
            .campaigns()
            .await
            .map(|list| (Sent::Campaigns(list.clone()), Some(Message::Campaigns(list)))),
        Some(name) => match store.revision(name).await {
            Ok(revision) if *sent == Sent::Revision(revision) => {
                Ok((Sent::Revision(revision), None))
            }
            Ok(_) => store.outline(name).await.map(|found| {
                (Sent::Revision(found.revision), Some(Message::Snapshot(Box::new(found))))
            }),
            Err(error) => Err(error),
        },
    };
    result.unwrap_or_else(|error| trouble(&error))
}

fn trouble(error: &db::DbError) -> (Sent, Option<Message>) {
    let text = error.to_string();
    (Sent::Trouble(text.clone()), Some(Message::Trouble(text)))
}
