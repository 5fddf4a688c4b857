//! An honest timing: warm-up, enough samples, the median with its spread, and the load of other processes beside it.

use std::fs;
use std::time::{Duration, Instant};

/// How long and how often a piece of work is timed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Time that the work runs before it is timed.
    pub warm_up: Duration,
    /// Samples taken at least.
    pub samples_min: usize,
    /// Samples taken at most.
    pub samples_max: usize,
    /// Time over which a series of samples is taken: long enough to see the load of other processes.
    pub time: Duration,
    /// Load of other processes above which a series does not count.
    pub quiet_load: f64,
    /// How far the two quickest series may lie apart, as a share of the quicker one.
    pub agreement: f64,
    /// Time after which the best that was seen is taken as it is.
    pub patience: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            warm_up: Duration::from_millis(30),
            samples_min: 5,
            samples_max: 20_000,
            time: Duration::from_millis(200),
            quiet_load: 0.05,
            agreement: 0.02,
            patience: Duration::from_secs(3),
        }
    }
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measurement {
    /// Median of the samples of the quickest series.
    pub median_us: f64,
    /// Half the interquartile range of its samples, or half of what the next series differs by if that is more.
    pub spread_us: f64,
    /// Number of samples of that series.
    pub samples: usize,
    /// Share of the machine that other processes used meanwhile, 0 to 1; none where the system does not tell.
    pub other_load: Option<f64>,
}

/// Times `work` as the plan says: series of samples, until the two quickest agree on what a quiet machine takes.
///
/// Other processes slow a machine down, which their load shows; so do the clock, and other machines of the same host,
/// which nothing shows but time itself. All of it makes a series slower, never quicker, and lasts for seconds. So series
/// are taken until two agree, none of them under load. When patience ends first the quickest quiet series counts, or the
/// one under least load.
///
/// The patience and the warm-up bound the time only between calls of `work`.
pub fn measure(plan: &Plan, work: impl FnMut()) -> Measurement {
    measure_after(plan, || {}, work)
}

/// [`measure`], with something that happens before each sample and is not timed.
pub fn measure_after(plan: &Plan, mut before: impl FnMut(), mut work: impl FnMut()) -> Measurement {
    let begin = Instant::now();
    loop {
        before();
        work();
        if begin.elapsed() >= plan.warm_up {
            break;
        }
    }
    let mut all: Vec<Measurement> = Vec::new();
    let mut pause = Duration::from_millis(25);
    loop {
        all.push(series(plan, &mut before, &mut work));
        let agreed = agreed(plan, &mut all);
        if agreed || begin.elapsed() + pause >= plan.patience {
            return quickest(plan, &all);
        }
        std::thread::sleep(pause);
        pause = (2 * pause).min(Duration::from_millis(200));
        before();
        work();
    }
}

/// Whether the two quickest quiet series agree; sorts the series, quiet ones first, by time.
pub fn agreed(plan: &Plan, all: &mut [Measurement]) -> bool {
    let is_loaded = |m: &Measurement| m.other_load.unwrap_or(0.0) > plan.quiet_load;
    all.sort_by(|a, b| is_loaded(a).cmp(&is_loaded(b)).then(a.median_us.total_cmp(&b.median_us)));
    match all {
        [first, second, ..] if !is_loaded(second) => {
            second.median_us <= first.median_us * (1.0 + plan.agreement)
        }
        _ => false,
    }
}

/// What counts of series, of which there is one at least, as [`agreed`] leaves them.
pub fn quickest(plan: &Plan, all: &[Measurement]) -> Measurement {
    let load = |m: &Measurement| m.other_load.unwrap_or(0.0);
    let first = all[0];
    if load(&first) > plan.quiet_load {
        return all.iter().copied().min_by(|a, b| load(a).total_cmp(&load(b))).unwrap_or(first);
    }
    let next = all.get(1).filter(|next| load(next) <= plan.quiet_load);
    let apart_us = next.map_or(0.0, |next| next.median_us - first.median_us);
    Measurement { spread_us: first.spread_us.max(apart_us / 2.0), ..first }
}

fn series(plan: &Plan, before: &mut impl FnMut(), work: &mut impl FnMut()) -> Measurement {
    let load = LoadWatch::start();
    let begin = Instant::now();
    let mut samples_us = Vec::new();
    while samples_us.len() < plan.samples_min.max(1)
        || (samples_us.len() < plan.samples_max && begin.elapsed() < plan.time)
    {
        before();
        let start = Instant::now();
        work();
        samples_us.push(start.elapsed().as_secs_f64() * 1e6);
    }
    let samples = samples_us.len();
    let (median_us, spread_us) = median_and_spread(&mut samples_us);
    Measurement { median_us, spread_us, samples, other_load: load.and_then(|load| load.end()) }
}

/// The median and half the interquartile range, by linear interpolation; sorts the values. Zeros for no values.
pub fn median_and_spread(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let quantile = |q: f64| {
        let at = q * (values.len().saturating_sub(1)) as f64;
        let low = values.get(at.floor() as usize).copied().unwrap_or(0.0);
        let high = values.get(at.ceil() as usize).copied().unwrap_or(0.0);
        low + (high - low) * at.fract()
    };
    (quantile(0.5), (quantile(0.75) - quantile(0.25)) / 2.0)
}

/// Watches what other processes use of the machine, from one moment to another.
#[derive(Debug)]
pub struct LoadWatch {
    begin: Instant,
    used: Used,
}

/// Processor time in ticks since the machine or this process started.
#[derive(Debug, Clone, Copy)]
struct Used {
    machine: u64,
    own: u64,
    cores: usize,
}

/// Ticks of /proc per second: USER_HZ, 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

impl LoadWatch {
    /// Starts now; none where the system has no /proc.
    pub fn start() -> Option<Self> {
        Some(Self { begin: Instant::now(), used: Used::read()? })
    }

    /// The share of all cores that other processes used since the start, 0 to 1.
    pub fn end(&self) -> Option<f64> {
        let now = Used::read()?;
        let machine = now.machine.saturating_sub(self.used.machine);
        let own = now.own.saturating_sub(self.used.own);
        let other = machine.saturating_sub(own) as f64 / TICKS_PER_SECOND;
        let available = self.begin.elapsed().as_secs_f64() * now.cores as f64;
        (available > 0.0).then(|| (other / available).min(1.0))
    }
}

impl Used {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let own = fs::read_to_string("/proc/self/stat").ok()?;
        Some(Self {
            machine: machine_ticks(stat.lines().next()?)?,
            own: own_ticks(&own)?,
            cores: stat.lines().skip(1).take_while(|line| line.starts_with("cpu")).count().max(1),
        })
    }
}

/// Busy ticks of the line `cpu user nice system idle iowait irq softirq steal …`: what a hypervisor took away counts as
/// used by others.
fn machine_ticks(line: &str) -> Option<u64> {
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map_while(|t| t.parse().ok()).collect();
    let (programs, interrupts) = (ticks.get(..3)?, ticks.get(5..ticks.len().min(8))?);
    Some(programs.iter().chain(interrupts).sum())
}

/// Fields 14 and 15 of /proc/self/stat, utime and stime. The name in field 2 may hold spaces and brackets.
fn own_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_as_linux_writes_it() {
        assert_eq!(machine_ticks("cpu  100 20 3 5000 700 4 5 6 0 0"), Some(138));
        assert_eq!(machine_ticks("cpu"), None);
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 70 8 0 0 20";
        assert_eq!(own_ticks(stat), Some(78));
    }

    #[test]
    fn median_and_spread_interpolate() {
        assert_eq!(median_and_spread(&mut [3.0, 1.0, 2.0]), (2.0, 0.5));
        assert_eq!(median_and_spread(&mut [4.0, 1.0]), (2.5, 0.75));
        assert_eq!(median_and_spread(&mut [7.0]), (7.0, 0.0));
        assert_eq!(median_and_spread(&mut []), (0.0, 0.0));
    }

    fn series_of(median_us: f64, other_load: f64) -> Measurement {
        Measurement { median_us, spread_us: 0.1, samples: 9, other_load: Some(other_load) }
    }

    #[test]
    fn two_quiet_series_must_agree_and_the_quickest_counts() {
        let plan = Plan::default();
        let mut all = vec![series_of(12.0, 0.0)];
        assert!(!agreed(&plan, &mut all), "one series says nothing of the machine");
        all.push(series_of(10.0, 0.0));
        assert!(!agreed(&plan, &mut all));
        assert_eq!(
            quickest(&plan, &all),
            Measurement { spread_us: 1.0, ..series_of(10.0, 0.0) },
            "2 apart"
        );
        all.push(series_of(9.9, 0.5));
        assert!(!agreed(&plan, &mut all), "the quickest was taken under load");
        all.push(series_of(10.1, 0.0));
        assert!(agreed(&plan, &mut all));
        assert_eq!(quickest(&plan, &all), series_of(10.0, 0.0));
    }

    #[test]
    fn under_load_alone_the_quietest_series_counts() {
        let plan = Plan::default();
        let mut all = vec![series_of(10.0, 0.9), series_of(11.0, 0.2), series_of(10.0, 0.4)];
        assert!(!agreed(&plan, &mut all));
        assert_eq!(quickest(&plan, &all), series_of(11.0, 0.2));
    }

    #[test]
    fn a_sleep_takes_as_long_as_it_says_and_patience_ends() {
        let plan = Plan {
            warm_up: Duration::ZERO,
            samples_min: 3,
            samples_max: 4,
            time: Duration::from_millis(5),
            quiet_load: -1.0,
            agreement: 0.0,
            patience: Duration::from_millis(150),
        };
        let begin = Instant::now();
        let measurement = measure(&plan, || std::thread::sleep(Duration::from_millis(2)));
        assert!(measurement.median_us >= 2000.0);
        assert!((3..=4).contains(&measurement.samples));
        assert!(begin.elapsed() >= Duration::from_millis(2), "the work ran");
        assert!(measurement.other_load.is_none_or(|load| (0.0..=1.0).contains(&load)));
    }
}
