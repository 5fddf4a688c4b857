//! Being asked to stop: Ctrl-C, a polite kill, a closed terminal, a time that is nearly over.

use tokio::sync::mpsc;

/// The signals that end a campaign in order. They are heard by a task of their own: a driver that computes cannot keep
/// them from being heard, and a second one that it still has not answered ends the program.
pub(crate) struct StopSignals {
    asked: mpsc::Receiver<()>,
}

impl StopSignals {
    /// Listens from now on; also to USR1, by which a batch system says that the time is nearly over.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen_with_time_limit() -> std::io::Result<Self> {
        Self::hear(Some(HandBack::listen()?))
    }

    /// Listens from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Self::hear(None)
    }

    fn hear(mut time_limit: Option<HandBack>) -> std::io::Result<Self> {
        let (tell, asked) = mpsc::channel(1);
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hangup = signal(SignalKind::hangup())?;
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hangup.recv() => {}
                        () = nearly_over(&mut time_limit) => {}
                    }
                    if let Err(mpsc::error::TrySendError::Full(())) = tell.try_send(()) {
                        // What is stored is whole at every moment; workers leave when their input ends.
                        std::process::exit(130);
                    }
                }
            });
        }
        #[cfg(not(unix))]
        tokio::spawn(async move {
            drop(time_limit.take());
            while tokio::signal::ctrl_c().await.is_ok() {
                if let Err(mpsc::error::TrySendError::Full(())) = tell.try_send(()) {
                    std::process::exit(130);
                }
            }
        });
        Ok(Self { asked })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        if self.asked.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits for the signal of a batch system; for ever where it is not listened to.
#[cfg(unix)]
async fn nearly_over(time_limit: &mut Option<HandBack>) {
    match time_limit {
        Some(signal) => signal.next().await,
        None => std::future::pending().await,
    }
}

/// The signal by which a batch system says that a worker's time is nearly over: USR1.
pub(crate) struct HandBack {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl HandBack {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if self.signal.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}
