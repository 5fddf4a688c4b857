//! Spaces of plain parameters: categories, ordered choices, integers on a linear or logarithmic scale, some of them
//! present only when another has certain values. What a black box is optimised over.

mod assignment;

use rand::{RngExt, SeedableRng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::proposals::{Domain, SearchRng};
use crate::surrogate::Feature;

pub use assignment::{Assignment, Setting};

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parameter {
    /// Unique in its space.
    pub name: String,
    /// Its values.
    #[serde(flatten)]
    pub kind: ParameterKind,
    /// When it is present; none: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
}

/// The values of a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ParameterKind {
    /// One of some choices without order.
    Categorical {
        /// The choices.
        choices: Vec<Setting>,
    },
    /// One of some choices in order.
    Ordinal {
        /// The choices, first to last.
        choices: Vec<Setting>,
    },
    /// A whole number.
    Integer {
        /// Smallest value.
        low: i64,
        /// Largest value.
        high: i64,
    },
    /// A positive whole number of which the ratio matters, not the difference.
    LogInteger {
        /// Smallest value, at least 1.
        low: i64,
        /// Largest value.
        high: i64,
    },
}

/// The presence of a parameter: an earlier one is present and has one of these choices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Name of an earlier categorical or ordinal parameter.
    pub parameter: String,
    /// Its choices for which this parameter is present.
    pub is: Vec<Setting>,
}

/// Why a list of parameters is no space.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parameter `{name}`: {what}")]
pub struct ParameterError {
    /// Its name.
    pub name: String,
    /// Expected and got.
    pub what: String,
}

/// Whole numbers up to this one are doubles.
const MOST_WIDTH: i64 = 1 << 53;

/// A checked list of parameters.
///
/// A point has one number for each parameter: the index of the choice, or the integer; for an absent parameter the
/// first or lowest, so that equal points have equal numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterSpace {
    parameters: Vec<Parameter>,
    /// For conditional parameters: index of the other, and the choices of it.
    conditions: Vec<Option<(usize, Vec<i64>)>>,
    /// Parameters that share one list of choices, and the length of that list. How often a choice occurs among them
    /// says much where the parameters are places of one structure, the edges of a cell or the layers of a stack.
    families: Vec<(Vec<usize>, usize)>,
}

/// Fewer parameters or choices make no family: a tally of two says nothing that the two do not say.
const LEAST_FAMILY: usize = 3;

impl ParameterSpace {
    /// Checks names, ranges and conditions.
    ///
    /// # Errors
    /// For the first parameter that is not possible.
    pub fn new(parameters: Vec<Parameter>) -> Result<Self, ParameterError> {
        let mut conditions = Vec::new();
        for (index, parameter) in parameters.iter().enumerate() {
            let error = |what: String| ParameterError { name: parameter.name.clone(), what };
            if !crate::name::is_name(&parameter.name) {
                return Err(error("a name has 1 to 100 characters of one line".to_owned()));
            }
            if parameters[..index].iter().any(|other| other.name == parameter.name) {
                return Err(error("the name is taken; each parameter needs its own".to_owned()));
            }
            check_values(&parameter.kind).map_err(error)?;
            let condition = match &parameter.when {
                None => None,
                Some(when) => Some(resolve(when, &parameters[..index]).map_err(error)?),
            };
            conditions.push(condition);
        }
        if parameters.is_empty() {
            let what = "a space has at least one parameter".to_owned();
            return Err(ParameterError { name: String::new(), what });
        }
        let families = families(&parameters);
        Ok(Self { parameters, conditions, families })
    }

    /// A point of it, drawn by chance.
    pub fn drawn(&self, seed: u64) -> Option<Assignment> {
        let point = self.sample(&mut SearchRng::seed_from_u64(seed))?;
        Some(self.assignment(&point))
    }

    /// The parameters, in the order of a point's numbers.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Whether a parameter is present in a point.
    pub fn is_present(&self, point: &[i64], index: usize) -> bool {
        match &self.conditions[index] {
            None => true,
            Some((other, choices)) => {
                self.is_present(point, *other) && choices.contains(&point[*other])
            }
        }
    }

    /// Gives absent parameters their one value.
    fn settle(&self, point: &mut [i64]) {
        for (index, parameter) in self.parameters.iter().enumerate() {
            if !self.is_present(point, index) {
                point[index] = bounds(&parameter.kind).0;
            }
        }
    }
}

fn check_values(kind: &ParameterKind) -> Result<(), String> {
    match kind {
        ParameterKind::Categorical { choices } | ParameterKind::Ordinal { choices } => {
            let repeated = choices.iter().enumerate().find(|(i, c)| choices[..*i].contains(c));
            match repeated {
                _ if choices.is_empty() => Err("it needs at least one choice".to_owned()),
                Some((_, choice)) => Err(format!("the choice `{choice}` stands there twice")),
                None => Ok(()),
            }
        }
        ParameterKind::Integer { low, high } | ParameterKind::LogInteger { low, high } => {
            if low > high {
                return Err(format!("low must be at most high, got {low} and {high}"));
            }
            if high.checked_sub(*low).is_none_or(|width| width > MOST_WIDTH) {
                return Err(format!(
                    "low and high may lie at most 2^53 apart, got {low} and {high}: a double tells no more of them apart"
                ));
            }
            if matches!(kind, ParameterKind::LogInteger { .. }) && *low < 1 {
                return Err(format!("a logarithmic scale begins at 1 or above, got {low}"));
            }
            if matches!(kind, ParameterKind::LogInteger { .. }) && *high > MOST_WIDTH {
                return Err(format!("a logarithmic scale ends at 2^53 at most, got {high}"));
            }
            Ok(())
        }
    }
}

fn resolve(when: &Condition, earlier: &[Parameter]) -> Result<(usize, Vec<i64>), String> {
    let Some(other) = earlier.iter().position(|p| p.name == when.parameter) else {
        return Err(format!(
            "its condition names `{}`, which must stand before it",
            when.parameter
        ));
    };
    let (ParameterKind::Categorical { choices } | ParameterKind::Ordinal { choices }) =
        &earlier[other].kind
    else {
        return Err(format!("its condition is on `{}`, which has no choices", when.parameter));
    };
    let indices = when.is.iter().map(|name| {
        choices
            .iter()
            .position(|choice| choice == name)
            .map(|index| index as i64)
            .ok_or_else(|| format!("`{name}` is not a choice of `{}`", when.parameter))
    });
    Ok((other, indices.collect::<Result<_, _>>()?))
}

/// Unconditional categorical parameters with equal lists of choices.
fn families(parameters: &[Parameter]) -> Vec<(Vec<usize>, usize)> {
    let mut families: Vec<(Vec<usize>, usize)> = Vec::new();
    for (index, parameter) in parameters.iter().enumerate() {
        let ParameterKind::Categorical { choices } = &parameter.kind else { continue };
        if parameter.when.is_some() || choices.len() < LEAST_FAMILY {
            continue;
        }
        match families.iter_mut().find(|(of, _)| parameters[of[0]].kind == parameter.kind) {
            Some((members, _)) => members.push(index),
            None => families.push((vec![index], choices.len())),
        }
    }
    families.retain(|(members, _)| members.len() >= LEAST_FAMILY);
    families
}

/// The smallest and the largest number of a parameter.
fn bounds(kind: &ParameterKind) -> (i64, i64) {
    match kind {
        ParameterKind::Categorical { choices } | ParameterKind::Ordinal { choices } => {
            (0, choices.len() as i64 - 1)
        }
        ParameterKind::Integer { low, high } | ParameterKind::LogInteger { low, high } => {
            (*low, *high)
        }
    }
}

/// The place of a number on its parameter's scale, 0 to 1.
fn place(kind: &ParameterKind, value: i64) -> f64 {
    let (low, high) = bounds(kind);
    if low == high {
        return 0.0;
    }
    if matches!(kind, ParameterKind::LogInteger { .. }) {
        let low = low as f64;
        return (value as f64 / low).ln() / (high as f64 / low).ln();
    }
    (value - low) as f64 / (high - low) as f64
}

/// The number at a place.
fn at_place(kind: &ParameterKind, place: f64) -> i64 {
    let (low, high) = bounds(kind);
    let value = if matches!(kind, ParameterKind::LogInteger { .. }) {
        low as f64 * (high as f64 / low as f64).powf(place)
    } else {
        low as f64 + place * (high - low) as f64
    };
    (value.round() as i64).clamp(low, high)
}

fn draw(kind: &ParameterKind, rng: &mut SearchRng) -> i64 {
    let (low, high) = bounds(kind);
    match kind {
        ParameterKind::LogInteger { .. } => at_place(kind, rng.random()),
        _ => rng.random_range(low..=high),
    }
}

/// Another value of a parameter: on a scale mostly a near one.
fn vary(kind: &ParameterKind, value: i64, rng: &mut SearchRng) -> Option<i64> {
    let (low, high) = bounds(kind);
    if low == high {
        return None;
    }
    let is_near = !matches!(kind, ParameterKind::Categorical { .. }) && rng.random_bool(0.6);
    if is_near {
        let up = if value == high { false } else { value == low || rng.random_bool(0.5) };
        // A step of up to a fifth of the scale, at least one.
        let reach = 0.2 * rng.random::<f64>();
        let target = place(kind, value) + if up { reach } else { -reach };
        let stepped = at_place(kind, target.clamp(0.0, 1.0));
        let one = value + if up { 1 } else { -1 };
        return Some(if stepped == value || (stepped > value) != up { one } else { stepped });
    }
    for _ in 0..16 {
        let other = draw(kind, rng);
        if other != value {
            return Some(other);
        }
    }
    Some(if value == high { low } else { value + 1 })
}

impl Domain for ParameterSpace {
    type Point = Vec<i64>;
    type Id = Vec<i64>;

    fn id(&self, point: &Vec<i64>) -> Vec<i64> {
        point.clone()
    }

    fn sample(&self, rng: &mut SearchRng) -> Option<Vec<i64>> {
        let mut point: Vec<i64> = self.parameters.iter().map(|p| draw(&p.kind, rng)).collect();
        self.settle(&mut point);
        Some(point)
    }

    fn mutate(&self, point: &Vec<i64>, rng: &mut SearchRng) -> Option<(Vec<i64>, String)> {
        let present: Vec<usize> =
            (0..point.len()).filter(|&index| self.is_present(point, index)).collect();
        for _ in 0..64 {
            let index = present[rng.random_range(0..present.len())];
            let parameter = &self.parameters[index];
            let Some(value) = vary(&parameter.kind, point[index], rng) else { continue };
            let mut child = point.clone();
            child[index] = value;
            // What this change makes present begins anywhere.
            for other in index + 1..child.len() {
                if self.is_present(&child, other) && !self.is_present(point, other) {
                    child[other] = draw(&self.parameters[other].kind, rng);
                }
            }
            self.settle(&mut child);
            let (from, to) = (self.setting(point, index), self.setting(&child, index));
            return Some((child, format!("{} {from} → {to}", parameter.name)));
        }
        None
    }

    fn recombine(&self, a: &Vec<i64>, b: &Vec<i64>, rng: &mut SearchRng) -> Option<Vec<i64>> {
        let mut child: Vec<i64> =
            a.iter().zip(b).map(|(x, y)| if rng.random_bool(0.5) { *x } else { *y }).collect();
        self.settle(&mut child);
        Some(child)
    }

    fn enumerate(&self, limit: usize) -> Option<Vec<Vec<i64>>> {
        let mut points: Vec<Vec<i64>> = vec![Vec::new()];
        for (index, parameter) in self.parameters.iter().enumerate() {
            let (low, high) = bounds(&parameter.kind);
            let mut longer = Vec::new();
            for point in points {
                let last = if self.is_present(&point, index) { high } else { low };
                if longer.len() as u64 + last.abs_diff(low) >= limit as u64 {
                    return None;
                }
                longer.extend((low..=last).map(|value| [point.as_slice(), &[value]].concat()));
            }
            points = longer;
        }
        Some(points)
    }

    fn features(&self) -> Vec<Feature> {
        let mut features = Vec::new();
        for (parameter, condition) in self.parameters.iter().zip(&self.conditions) {
            features.push(match parameter.kind {
                ParameterKind::Categorical { .. } => Feature::Category,
                _ => Feature::Number,
            });
            // A number cannot say that it is absent; a second feature does.
            if condition.is_some() {
                features.push(Feature::Category);
            }
        }
        let tallies: usize = self.families.iter().map(|(_, choices)| choices).sum();
        features.extend(vec![Feature::Number; tallies]);
        features
    }

    fn encode(&self, point: &Vec<i64>) -> Vec<f64> {
        let mut row = Vec::new();
        for (index, parameter) in self.parameters.iter().enumerate() {
            let is_present = self.is_present(point, index);
            row.push(match parameter.kind {
                ParameterKind::Categorical { .. } if is_present => point[index] as f64,
                ParameterKind::Categorical { .. } => -1.0,
                _ if is_present => place(&parameter.kind, point[index]),
                _ => 0.5,
            });
            if self.conditions[index].is_some() {
                row.push(f64::from(u8::from(is_present)));
            }
        }
        for (members, choices) in &self.families {
            for choice in 0..*choices as i64 {
                let count = members.iter().filter(|&&index| point[index] == choice).count();
                row.push(count as f64 / members.len() as f64);
            }
        }
        row
    }
}

impl ParameterSpace {
    /// The value of a parameter as the black box gets it.
    pub fn setting(&self, point: &[i64], index: usize) -> Setting {
        match &self.parameters[index].kind {
            ParameterKind::Categorical { choices } | ParameterKind::Ordinal { choices } => {
                choices[point[index] as usize].clone()
            }
            ParameterKind::Integer { .. } | ParameterKind::LogInteger { .. } => {
                Setting::Number(point[index].into())
            }
        }
    }

    /// The values of the parameters that are present.
    pub fn assignment(&self, point: &[i64]) -> Assignment {
        let present = (0..point.len()).filter(|&index| self.is_present(point, index));
        let name = |index: usize| self.parameters[index].name.clone();
        Assignment(present.map(|index| (name(index), self.setting(point, index))).collect())
    }

    /// The point with these values; none when they are not values of this space.
    pub fn point_of(&self, assignment: &Assignment) -> Option<Vec<i64>> {
        let mut point: Vec<i64> = self.parameters.iter().map(|p| bounds(&p.kind).0).collect();
        for (name, setting) in &assignment.0 {
            let index = self.parameters.iter().position(|p| p.name == *name)?;
            let number = match &self.parameters[index].kind {
                ParameterKind::Categorical { choices } | ParameterKind::Ordinal { choices } => {
                    choices.iter().position(|choice| choice == setting)? as i64
                }
                ParameterKind::Integer { low, high } | ParameterKind::LogInteger { low, high } => {
                    let Setting::Number(number) = setting else { return None };
                    number.as_i64().filter(|number| (*low..=*high).contains(number))?
                }
            };
            point[index] = number;
        }
        (self.assignment(&point) == *assignment).then_some(point)
    }
}
