//! `deltafront scale`

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use db::snapshot::CampaignState;

use super::run::{self, Files};
use super::{block_on, open};
use crate::driver::{Whereabouts, say, token};
use crate::scale::{Kind, Order, Wanted, want};
use crate::words;

/// Have a batch system place the workers of a campaign. Start its coordinator first, `deltafront run --listen`, somewhere that
/// the workers reach.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Submit long-lived workers to Slurm: so many that there are as many as wanted. Fewer than there are: the others hand
    /// back what they are at and leave.
    Slurm(Box<Slurm>),
    /// Say how the workers stand in Slurm's queue and why they wait; submit those again that are missing.
    Status(Status),
}

#[derive(clap::Args)]
struct Slurm {
    /// The campaign file.
    #[arg(default_value = "campaign.toml")]
    file: PathBuf,
    /// Workers that there are to be; 0: none any more.
    #[arg(long, short)]
    workers: u32,
    /// Where workers reach the coordinator; where it is left out, as the coordinator listened last.
    #[arg(long, value_name = "HOST:PORT")]
    connect: Option<String>,
    /// Workers that time instead of training.
    #[arg(long)]
    times: bool,
    #[command(flatten)]
    options: Options,
    /// Write the script and say what it is, but submit nothing.
    #[arg(long)]
    print: bool,
    /// Further words for `deltafront worker`, behind `--`: `-- --threads 8 --apart`.
    #[arg(last = true)]
    worker: Vec<String>,
}

/// What `sbatch` is given, in its own words.
#[derive(clap::Args)]
struct Options {
    /// What a worker needs, say gpu:1.
    #[arg(long)]
    gres: Option<String>,
    /// How long a worker may stay; it hands back what it is at two minutes before.
    #[arg(long)]
    time: Option<String>,
    /// Where.
    #[arg(long)]
    partition: Option<String>,
    /// On whose account.
    #[arg(long)]
    account: Option<String>,
    /// With which quality of service.
    #[arg(long)]
    qos: Option<String>,
    /// Cores of a worker.
    #[arg(long, value_name = "N")]
    cpus_per_task: Option<String>,
    /// Memory of a worker, say 32G.
    #[arg(long)]
    mem: Option<String>,
    /// Anything else that `sbatch` knows: --sbatch=--constraint=a100; may be repeated.
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    sbatch: Vec<String>,
}

impl Options {
    fn words(&self) -> Vec<String> {
        let named = [
            ("gres", &self.gres),
            ("time", &self.time),
            ("partition", &self.partition),
            ("account", &self.account),
            ("qos", &self.qos),
            ("cpus-per-task", &self.cpus_per_task),
            ("mem", &self.mem),
        ];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let named = named.map(|(name, value)| format!("--{name}={value}"));
        named.chain(self.sbatch.iter().cloned()).collect()
    }
}

#[derive(clap::Args)]
struct Status {
    /// The campaign file.
    #[arg(default_value = "campaign.toml")]
    file: PathBuf,
    /// Look again every so many seconds, until the campaign is finished.
    #[arg(long, value_name = "SECONDS")]
    watch: Option<f64>,
    /// Only look: submit nothing.
    #[arg(long)]
    look: bool,
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::Slurm(slurm) => submit(db, slurm)?,
        What::Status(status) => look(db, status)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn submit(db: &Path, args: &Slurm) -> anyhow::Result<()> {
    let (_, file, _) = run::read(&args.file)?;
    let files = Files::beside(db, &file.name);
    std::fs::create_dir_all(&files.folder)
        .with_context(|| format!("cannot make the folder {}", files.folder.display()))?;
    let known = Whereabouts::find(&files.folder);
    let mut worker = args.worker.clone();
    if known.as_ref().is_some_and(|known| known.plain) {
        worker.push("--without-tls".to_owned());
    }
    let address = args.connect.clone().or(known.map(|known| known.address));
    let Some(address) = address else {
        bail!(
            "no coordinator of campaign `{}` has listened yet: start it by `{} run --listen HOST:PORT`, or say by --connect where \
             it will",
            file.name,
            words::program()
        );
    };
    let options = args.options.words();
    if let Some(odd) = options.iter().find(|option| option.contains('\n')) {
        bail!("`{}` is no option of sbatch", tui::printable(odd));
    }
    let order = Order {
        campaign: &super::file_name(&file.name),
        kind: if args.times { Kind::Time } else { Kind::Train },
        workers: args.workers,
        options: &options,
        worker: &worker,
        address: &address,
        token: &token(&files.folder)?.to_string(),
    };
    let (wanted, text) = want(&files.folder, &order)?;
    let mut stdout = std::io::stdout();
    if args.print {
        stdout.write_all(text.as_bytes())?;
    } else {
        write!(stdout, "{}", wanted.see_to(is_finished(db, &file.name)?, true)?)?;
    }
    Ok(())
}

fn look(db: &Path, args: &Status) -> anyhow::Result<()> {
    let (_, file, _) = run::read(&args.file)?;
    let files = Files::beside(db, &file.name);
    let pause = args.watch.map(Duration::try_from_secs_f64).transpose();
    let pause = pause.context("--watch must be a number of seconds")?;
    let mut stdout = std::io::stdout();
    loop {
        let is_finished = is_finished(db, &file.name)?;
        let wanted: Vec<Wanted> =
            Kind::ALL.iter().filter_map(|kind| Wanted::find(&files.folder, *kind)).collect();
        if wanted.is_empty() {
            bail!(
                "nothing was submitted for campaign `{}` yet: {} scale slurm --workers N",
                file.name,
                words::program()
            );
        }
        if is_finished {
            writeln!(stdout, "campaign {} is finished", file.name)?;
        }
        for wanted in wanted {
            match wanted.see_to(is_finished, !args.look) {
                Ok(standing) => write!(stdout, "{standing}")?,
                // One answer that Slurm fails to give says nothing of the next.
                Err(error) if pause.is_some() => say(&format!("{error:#}")),
                Err(error) => return Err(error),
            }
        }
        match pause {
            Some(pause) if !is_finished => std::thread::sleep(pause),
            _ => return Ok(()),
        }
    }
}

/// Whether a campaign is at its end; one that has not begun is not.
fn is_finished(db: &Path, name: &str) -> anyhow::Result<bool> {
    if !db.exists() {
        return Ok(false);
    }
    block_on(async {
        let campaigns = open(db).await?.campaigns().await?;
        let campaign = campaigns.iter().find(|campaign| campaign.name == name);
        Ok(campaign.is_some_and(|campaign| campaign.state == CampaignState::Finished))
    })
}
