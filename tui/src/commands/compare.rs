//! `deltafront compare`

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use db::snapshot::{Campaign, CampaignState, Snapshot};
use db::{Access, Change, Circumstance, DbError, NewCampaign, Store};
use search::Architecture;
use search::campaign::CandidateState;
use search::config::{CampaignFile, DataConfig, SearchConfig, TrustConfig};
use search::latency::{Conditions, WholeModels};
use search::proposals::Algorithm;
use search::references::{EqualLatency, Reference, ReferenceShape};
use tui::quantity;

use super::campaign_file::{absolute, refuse_changes};
use super::contents::Inputs;
use super::run::{self, Conclusion, Files, done, drive_to_end, job, profiler};
use super::watching::Watching;
use super::{INTERRUPTED, candidate, products};
use crate::driver::{Profiler, say};
use crate::report::comparison::Comparison;
use crate::{report, words};

const EXAMPLES: &str = "\
Examples:
  deltafront compare my-campaign 17                    beside every hand-designed stack, three seeds each
  deltafront compare my-campaign 17 --stacks gated-deltanet,samba,nemotron-flash --seeds 5
  deltafront compare my-campaign 17 --json             the table again, for programs
  deltafront compare my-campaign stack.json            a stack from elsewhere, on that campaign's terms

A comparison is a campaign of its own in the same database: Ctrl-C pauses it, the same command goes on, and `show`,
`browse` and `report` show it too.";

/// Set a stack beside the hand-designed ones, each as wide as takes the same time.
///
/// Every hand-designed stack gets as many mixers as the chosen one, and is made wider or narrower until its whole model
/// decodes a token in the same measured time. Then all of them are trained alike, from several seeds.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The campaign.
    campaign: String,
    /// The candidate: its number, the first digits of its id, or the name of its reference stack; or a file that holds a
    /// stack, as `deltafront export` writes it.
    candidate: String,
    /// The hand-designed stacks, by name. Default: all.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    stacks: Vec<String>,
    /// Seeds that each stack is trained from. Default: 3.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    seeds: Option<u32>,
    /// Tokens of each training. Default: those of the campaign.
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// Name of the comparison in the database. Default: CAMPAIGN-compare-NUMBER.
    #[arg(long)]
    name: Option<String>,
    /// Plain lines instead of bars, as when stderr is not a terminal.
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    watching: Watching,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Seeds unless the command line says otherwise.
const SEEDS: u32 = 3;

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    args.watching.open_log()?;
    super::block_on_threads(compare(db, args))
}

async fn compare(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let of = Chosen::find(&super::open(db).await?, args).await?;
    if args.tokens.is_some() && of.file.data.is_none() && !of.file.tasks.is_empty() {
        bail!(
            "campaign `{}` has no text, and its [[tasks]] say for how many tokens each is trained; leave --tokens out",
            args.campaign
        );
    }
    let name =
        args.name.clone().unwrap_or_else(|| format!("{}-compare-{}", args.campaign, of.mark));
    let store = Store::open(db, Access::ReadWrite).await?;
    let before = match store.snapshot(&name).await {
        Ok(before) => Some(before),
        Err(DbError::NoCampaign { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let mut changes = Vec::new();
    let source = format!("the file of campaign `{}`", args.campaign);
    // What the stacks are compared on is what theirs was trained on, as long as that is known.
    let inputs = async |data: &Option<DataConfig>| {
        let began = match &before {
            Some(_) => store.circumstances(&name).await?,
            None => Vec::new(),
        };
        let (began, of) =
            if began.is_empty() { (&of.circumstances, &args.campaign) } else { (&began, &name) };
        let inputs = Inputs::read(data.as_ref(), began)?;
        let differences = inputs.changes();
        if !differences.is_empty() {
            refuse_changes(&format!("what {source} names has changed"), of, &differences)?;
        }
        anyhow::Ok(inputs)
    };
    let data =
        |file: &CampaignFile| absolute(file.data.as_ref(), &of.folder, Path::new(&source), "");
    let file = if let Some(before) = &before {
        let (file, is_changed) = going_on(before, &of, args)?;
        if is_changed {
            changes.push(Change::Settings(new_campaign(&file, &of)?));
        } else if before.campaign.state == CampaignState::Finished {
            return print(before, &of, args);
        }
        say(&format!("comparison `{name}` goes on"));
        file
    } else {
        let references = args
            .stacks
            .iter()
            .map(|word| Ok(word.parse()?))
            .collect::<anyhow::Result<Vec<Reference>>>()?;
        let references = if references.is_empty() { Reference::ALL.to_vec() } else { references };
        inputs(&data(&of.file)?).await?;
        let stacks = of.as_fast(&references).await?;
        let file = of.comparison(&name, stacks, args);
        let new = new_campaign(&file, &of)?;
        // What `run` would refuse is refused here.
        CampaignFile::parse(&new.config_toml)
            .map_err(|error| anyhow::anyhow!("{}: {}", error.key, error.message))?;
        store.create_campaign(&new).await?;
        say(&format!("comparison `{name}` begins in {}", db.display()));
        file
    };
    let files = Files::beside(db, &name);
    let data = data(&file)?;
    let inputs = inputs(&data).await?;
    changes.extend(inputs.to_remember());
    let mut job =
        job(&file, data, &of.folder, &files, !args.plain && std::io::stderr().is_terminal())?;
    job.must_be_there()?;
    job.metrics = args.watching.endpoint().await?;
    job.trainer.introduction.expect(inputs.expected());
    let began = store.circumstances(&name).await?;
    let is_new = before.is_none_or(|before| done(&before) == 0);
    // As the campaign's own trainings were, as long as that is known.
    let began = if is_new { &of.circumstances } else { &began };
    changes.extend(products::settle(&mut job.trainer, began, is_new, true).await);
    let again = format!(
        "{} compare{} {} {}{}",
        words::program(),
        report::db_flag(db),
        words::quoted(&args.campaign),
        words::quoted(&of.word),
        args.name.as_ref().map_or(String::new(), |name| format!(" --name {}", words::quoted(name))),
    );
    let notify = args.watching.notify(&file.notify, of.folder.clone());
    let conclusion = Conclusion { again, show: job.show, reports: false, notify };
    let code = drive_to_end(&store, job, changes, &files, conclusion).await?;
    if code == ExitCode::from(INTERRUPTED) {
        return Ok(code);
    }
    print(&super::open(db).await?.snapshot(&name).await?, &of, args)
}

fn print(snapshot: &Snapshot, of: &Chosen, args: &Args) -> anyhow::Result<ExitCode> {
    let comparison = Comparison::of(snapshot, &of.name());
    let text = if args.json {
        serde_json::to_string_pretty(&comparison)? + "\n"
    } else {
        comparison.text()
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The campaign file of a comparison that is there, with what the command line says; and whether that changes it.
fn going_on(before: &Snapshot, of: &Chosen, args: &Args) -> anyhow::Result<(CampaignFile, bool)> {
    let Campaign { name, config_toml, .. } = &before.campaign;
    let mut file = stored(&before.campaign)?;
    if file.search.stacks.get(&of.name()) != Some(&of.stack.to_string()) {
        bail!("campaign `{name}` is not a comparison of this stack; choose another --name");
    }
    if !args.stacks.is_empty() {
        let is_given = |name: &String| *name == of.name() || args.stacks.contains(name);
        let is_there = |name: &String| file.search.stacks.contains_key(name);
        if !args.stacks.iter().all(is_there) || !file.search.stacks.keys().all(is_given) {
            bail!(
                "comparison `{name}` began with other --stacks; leave them out to go on, or choose another --name"
            );
        }
    }
    if let Some(tokens) = args.tokens
        && tokens != file.training.tokens
    {
        bail!(
            "comparison `{name}` began with {} tokens; leave --tokens out to go on, or choose another --name",
            file.training.tokens
        );
    }
    if let Some(seeds) = args.seeds {
        file.trust.seeds = seeds;
    }
    let is_changed = text(&file, of)? != *config_toml;
    Ok((file, is_changed))
}

/// The campaign file that a campaign of stacks was made from.
pub(super) fn stored(campaign: &Campaign) -> anyhow::Result<CampaignFile> {
    CampaignFile::parse(&campaign.config_toml).map_err(|error| {
        anyhow::anyhow!(
            "the file of campaign `{}`, as it was stored, does not parse: {error}",
            campaign.name
        )
    })
}

fn new_campaign(file: &CampaignFile, of: &Chosen) -> anyhow::Result<NewCampaign> {
    let target_tokens = file.tokens();
    Ok(NewCampaign { target_tokens, ..run::new_campaign(file, text(file, of)?, &of.folder) })
}

fn text(file: &CampaignFile, of: &Chosen) -> anyhow::Result<String> {
    let toml = toml::to_string(file).context("the campaign file cannot be written as TOML")?;
    Ok(format!(
        "{HEAD}{} {}`: stacks that decode a token in the same time.\n{toml}",
        words::quoted(&of.file.name),
        words::quoted(&of.word)
    ))
}

/// What the chosen stack is called in a comparison that was made for a candidate of the campaign `of`; none of other campaigns.
pub(super) fn chosen_in(campaign: &Campaign, of: &str) -> Option<String> {
    let mark = format!("{HEAD}{} ", words::quoted(of));
    let word = campaign.config_toml.strip_prefix(&mark)?.split('`').next()?;
    word.chars().all(|c| c.is_ascii_digit()).then(|| format!("candidate-{word}"))
}

/// Whether a campaign is a comparison.
pub(super) fn is_comparison(campaign: &Campaign) -> bool {
    campaign.config_toml.starts_with(HEAD)
}

/// How the file of a comparison begins.
const HEAD: &str = "# Made by `deltafront compare ";

/// The stack that others are set beside, and the campaign that it is from.
struct Chosen {
    file: CampaignFile,
    /// In which the campaign file lay.
    folder: std::path::PathBuf,
    /// The word that names it on the command line.
    word: String,
    /// What it is called in names: its number, or the first digits of the identity of one from a file.
    mark: String,
    stack: Architecture,
    /// What the campaign's files held when it began.
    circumstances: Vec<Circumstance>,
}

impl Chosen {
    async fn find(store: &Store, args: &Args) -> anyhow::Result<Self> {
        let snapshot = store.outline(&args.campaign).await?;
        if snapshot.campaign.is_black_box() {
            bail!(
                "campaign `{}` optimises a black box: it has no stacks to compare",
                args.campaign
            );
        }
        let file = stored(&snapshot.campaign)?;
        let (word, mark, stack) = if names_a_file(&args.candidate) {
            let stack = crate::export::read(&args.candidate)?;
            if stack.vocab() != file.space.vocab {
                bail!(
                    "{} has a vocabulary of {}, and campaign `{}` trains stacks of {}",
                    args.candidate,
                    stack.vocab(),
                    args.campaign,
                    file.space.vocab
                );
            }
            (args.candidate.clone(), stack.id().as_str()[..8].to_owned(), stack)
        } else {
            let candidate = candidate(&snapshot, &args.candidate)?;
            let (CandidateState::Done, Some(stack)) =
                (&candidate.row.state, candidate.row.subject.stack())
            else {
                bail!(
                    "candidate {} of `{}` is not done; choose one that is, `deltafront show {}` lists the front",
                    candidate.row.number,
                    args.campaign,
                    words::quoted(&args.campaign)
                );
            };
            let number = candidate.row.number.to_string();
            (number.clone(), number, stack.clone())
        };
        Ok(Self {
            file,
            folder: store.config_folder(&args.campaign).await?.into(),
            word,
            mark,
            stack,
            circumstances: store.circumstances(&args.campaign).await?,
        })
    }

    /// What it is called among the others.
    fn name(&self) -> String {
        format!("candidate-{}", self.mark)
    }

    /// The stack itself and the references that take the same time, by name.
    async fn as_fast(&self, references: &[Reference]) -> anyhow::Result<BTreeMap<String, String>> {
        let mut profiler = Profiler::start(&profiler(&self.file.latency, &self.folder)?).await?;
        let (_, conditions) = self.file.latency.latencies(profiler.device()).swap_remove(0);
        let wanted_us =
            profiler.whole("the chosen stack", &self.stack, &conditions).await?.median_us;
        say(&format!(
            "{} decodes a token in {} µs; looking for the widths at which the others do",
            self.name(),
            quantity::significant(wanted_us)
        ));
        let mut shape = ReferenceShape::of(&self.file.space()?);
        let mixers = self.stack.layers().iter().filter(|layer| layer.mixer.is_some()).count();
        shape.layers = (mixers as u32).max(1);
        let mut found = vec![(self.name(), self.stack.clone())];
        for &reference in references {
            let search = EqualLatency::new(reference, shape.clone(), wanted_us);
            match nearest(search, reference, &mut profiler, &conditions).await {
                Ok((stack, us)) => {
                    let off = 100.0 * (us / wanted_us - 1.0);
                    let other = found.iter().find(|(_, other)| *other == stack);
                    if let Some((name, _)) = other {
                        say(&format!(
                            "{reference}: left out, at this depth the same stack as {name}"
                        ));
                        continue;
                    }
                    let width = stack.d_model();
                    let us = quantity::significant(us);
                    say(&format!("{reference}: width {width}, {us} µs ({off:+.1} %)"));
                    found.push((reference.to_string(), stack));
                }
                Err(error) => say(&format!("{reference}: left out: {error:#}")),
            }
        }
        profiler.dismiss().await;
        if found.len() < 2 {
            bail!("none of the stacks can be compared");
        }
        Ok(found.into_iter().map(|(name, stack)| (name, stack.to_string())).collect())
    }

    /// The campaign that trains each of the stacks, and nothing else, from several seeds.
    fn comparison(
        &self,
        name: &str,
        stacks: BTreeMap<String, String>,
        args: &Args,
    ) -> CampaignFile {
        let mut file = self.file.clone();
        name.clone_into(&mut file.name);
        let count = stacks.len() as u32;
        file.search = SearchConfig {
            algorithm: Algorithm::Random,
            evaluations: count,
            start: count,
            objectives: self.file.search.objectives.clone(),
            stacks,
            concurrency: self.file.search.concurrency,
            attempts: self.file.search.attempts,
            give_up_after: self.file.search.give_up_after,
            ..SearchConfig::default()
        };
        file.trust = TrustConfig { seeds: args.seeds.unwrap_or(SEEDS), ..TrustConfig::default() };
        file.latency.decode_budget_us = None;
        file.latency.time_whole_models = WholeModels::All;
        file.training.tokens = args.tokens.unwrap_or(file.training.tokens);
        file
    }
}

/// Whether a word is a file that is there, and not a candidate's number.
fn names_a_file(word: &str) -> bool {
    !word.chars().all(|c| c.is_ascii_digit()) && Path::new(word).exists()
}

/// The width of a reference whose time is nearest to the one that is wanted, and its time in µs.
pub(super) async fn nearest(
    mut search: EqualLatency,
    reference: Reference,
    profiler: &mut Profiler,
    conditions: &Conditions,
) -> anyhow::Result<(Architecture, f64)> {
    while let Some(stack) = search.ask() {
        let what = format!("{reference} at width {}", stack.d_model());
        let us = profiler.whole(&what, &stack, conditions).await?.median_us;
        search.tell(stack, us);
    }
    search.nearest().cloned().context("it cannot be built")
}
