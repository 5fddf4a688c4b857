//! Parallel coordinates: a line for each candidate through what it is and what it reached.

use std::collections::BTreeMap;

use db::snapshot::{Candidate, Snapshot};
use maud::html;
use search::architecture::MixerKind;
use search::objective::Objective;
use search::parameters::Setting;
use search::subject::{Assignment, Subject};
use tui::plot::Axis;
use tui::quantity;

use super::figure::{Figure, at, path};

/// Lines in the background at most.
const THREADS: usize = 400;
/// Axes at most.
const POLES: usize = 9;

struct Pole {
    title: String,
    values: BTreeMap<u32, f64>,
    is_turned: bool,
}

/// None where nothing can be compared.
pub(super) fn figure(snapshot: &Snapshot, values: &[&str], dots: &[u32]) -> Option<Figure> {
    let campaign = &snapshot.campaign;
    let dots =
        &dots.iter().copied().step_by(dots.len().div_ceil(THREADS).max(1)).collect::<Vec<u32>>();
    let is_shown = |c: &&Candidate| {
        c.rank.is_some()
            && (c.rank == Some(0)
                || c.row.reference.is_some()
                || dots.binary_search(&c.row.number).is_ok())
    };
    let shown: Vec<&Candidate> = snapshot.candidates.iter().filter(is_shown).collect();
    let mut poles = poles(&shown, values, &campaign.objectives);
    poles.truncate(POLES);
    if poles.len() < 2 || shown.len() < 2 {
        return None;
    }
    let (top, bottom) = (58.0, 300.0);
    let step = 740.0 / (poles.len() - 1) as f64;
    let x = |index: usize| 50.0 + step * index as f64;
    let axes: Vec<Axis> = poles.iter().map(axis).collect();
    let thread = |candidate: &Candidate| {
        let points: Option<Vec<(f64, f64)>> = poles
            .iter()
            .zip(&axes)
            .enumerate()
            .map(|(index, (pole, axis))| {
                let value = pole.values.get(&candidate.row.number)?;
                Some((x(index), bottom - axis.position(*value)?.clamp(0.0, 1.0) * (bottom - top)))
            })
            .collect();
        points
    };
    let mut threads: Vec<(&Candidate, Vec<(f64, f64)>)> =
        shown.iter().filter_map(|candidate| Some((*candidate, thread(candidate)?))).collect();
    let layer = |c: &Candidate| match (c.rank, &c.row.reference) {
        (Some(0), None) => ("thread front", 2),
        (_, Some(_)) => ("thread reference", 1),
        _ => ("thread", 0),
    };
    threads.sort_by_key(|(candidate, _)| layer(candidate).1);
    let body = html! {
        @for (candidate, points) in &threads {
            path class=(layer(candidate).0) data-n=(candidate.row.number) d=(path(points.iter().copied())) {}
        }
        @for (index, (pole, axis)) in poles.iter().zip(&axes).enumerate() {
            line class="pole" x1=(at(x(index))) x2=(at(x(index))) y1=(at(top)) y2=(at(bottom)) {}
            text class="name" x=(at(x(index))) y=(at(if index % 2 == 0 { top - 32.0 } else { top - 14.0 })) text-anchor="middle" { (pole.title) }
            @for tick in axis.ticks(6) {
                @if let Some(share) = axis.position(tick.value) {
                    @let y = bottom - share * (bottom - top);
                    line class="pole" x1=(at(x(index) - 3.0)) x2=(at(x(index) + 3.0)) y1=(at(y)) y2=(at(y)) {}
                    text class="label-reference" style="fill:var(--dim)" x=(at(x(index) + 6.0)) y=(at(y + 4.0)) { (tick.label) }
                }
            }
            rect class="brush" data-axis=(index) x=(at(x(index) - 14.0)) y=(at(top - 6.0)) width="28"
                height=(at(bottom - top + 12.0)) fill="transparent" {}
        }
    };
    let mut caption = "One line for each candidate: the front, references, and dominated ones. In the page a drag along an axis keeps \
         those that pass through it, a click lets go."
        .to_owned();
    if campaign.objectives.iter().any(Objective::is_maximised) {
        caption.push_str(" Axes of which more is better are turned.");
    }
    Some(Figure {
        name: "parallel-coordinates".to_owned(),
        title: "Parallel coordinates".to_owned(),
        caption,
        size: (840.0, bottom + 20.0),
        body,
    })
}

/// What candidates differ in, then what they reached.
fn poles(shown: &[&Candidate], values: &[&str], objectives: &[Objective]) -> Vec<Pole> {
    let of = |title: &str, value: &dyn Fn(&Candidate) -> Option<f64>| Pole {
        title: title.to_owned(),
        values: shown.iter().filter_map(|c| Some((c.row.number, value(c)?))).collect(),
        is_turned: false,
    };
    let stack = |c: &Candidate| c.row.subject.stack().cloned();
    let mut poles = vec![
        of("layers", &|c| Some(stack(c)?.layers().len() as f64)),
        of("width", &|c| Some(f64::from(stack(c)?.d_model()))),
        of("attention layers, %", &|c| {
            let stack = stack(c)?;
            let layers = stack.layers();
            let is_attention =
                |kind| matches!(kind, MixerKind::FullAttention | MixerKind::SlidingWindow);
            let count =
                layers.iter().filter(|l| l.mixer.is_some_and(|m| is_attention(m.kind()))).count();
            Some(100.0 * count as f64 / layers.len() as f64)
        }),
    ];
    let mut names: Vec<&String> = Vec::new();
    for candidate in shown {
        if let Subject::Point(Assignment(settings)) = &candidate.row.subject {
            for (name, _) in settings {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    poles.extend(names.iter().map(|name| of(name, &|c| number(c, name))));
    for name in values {
        let objective = objectives.iter().find(|objective| objective.name() == *name);
        let mut pole = of(&quantity::title(name), &|c| match objective {
            Some(objective) => c.objective(objective).map(|value| value.mean),
            None => c.row.values.get(*name).map(|value| value.mean),
        });
        pole.is_turned = objective.is_some_and(Objective::is_maximised);
        poles.push(pole);
    }
    // One value says nothing, and a line needs all of them.
    let is_telling = |pole: &Pole| {
        let range = range(pole);
        pole.values.len() * 2 > shown.len() && range.1 > range.0
    };
    poles.into_iter().filter(is_telling).collect()
}

/// A parameter that is a number.
fn number(candidate: &Candidate, name: &str) -> Option<f64> {
    let Subject::Point(Assignment(settings)) = &candidate.row.subject else { return None };
    match &settings.iter().find(|(other, _)| other == name)?.1 {
        Setting::Number(number) => number.as_f64(),
        Setting::Flag(_) | Setting::Word(_) => None,
    }
}

fn range(pole: &Pole) -> (f64, f64) {
    let finite = pole.values.values().filter(|value| value.is_finite());
    finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), value| {
        (lo.min(*value), hi.max(*value))
    })
}

fn axis(pole: &Pole) -> Axis {
    let (low, high) = range(pole);
    let axis = Axis::spanning(low, high);
    if pole.is_turned { axis.reversed() } else { axis }
}
