//! The space of a campaign: which architectures may be proposed, and the moves between them.
//!
//! A [`Space`] that exists is possible: [`Space::new`] checks the choices of the campaign file and finds at least one
//! architecture within the limits. Every move returns a member of the space that differs from where it came from.
//! Proposals, and nothing else, decide which move to make; see [`crate::campaign`].
//!
//! Two forms share the moves: in the *flat* form every layer chooses for itself; in the *staged* form the genes are
//! those of a template of repeated blocks (arXiv 2511.18890). Both express plain [`Architecture`]s, and both read their
//! genes back from one, so that nothing but the architecture need be stored.

mod choices;
mod config;
mod coordinates;
mod error;
mod flat;
mod form;
mod loads;
mod meta;
mod refused;
mod stage;
mod staged;
mod tables;

use rand::{Rng, RngExt, SeedableRng};

pub use choices::{KindChoices, Listed, MixerChoices};
pub use config::{FfnChoice, FfnSize, Range, Ratio, SpaceConfig, StageChoices};
pub use coordinates::{Coordinate, Scale};
pub use error::{SpaceError, SpaceViolation};
pub use refused::LeftOut;

use crate::architecture::{Architecture, Ffn, FfnKind, Mixer, MixerKind};
use crate::targets::Target;
use crate::tensors::parameters;
use error::invalid;
use flat::{Flat, check_depth};
use form::Form;
use meta::WithMeta;
use staged::Staged;
use tables::Tables;

/// A checked space.
#[derive(Debug, Clone)]
pub struct Space {
    choices: Choices,
    /// A member, found when the space was checked.
    witness: Architecture,
}

/// What may be chosen, and within which limits.
#[derive(Debug, Clone)]
struct Choices {
    tables: Tables,
    form: AnyForm,
    depth: Option<Range>,
    min_parameters: u64,
    max_parameters: u64,
    /// What every member loads in.
    loads_in: Vec<Target>,
}

#[derive(Debug, Clone)]
enum AnyForm {
    Flat(WithMeta<Flat>),
    Staged(WithMeta<Staged>),
}

/// Runs `$body` with `$form` bound to the form that the choices have.
macro_rules! with_form {
    ($choices:expr, $form:ident => $body:expr) => {
        match &$choices.form {
            AnyForm::Flat($form) => $body,
            AnyForm::Staged($form) => $body,
        }
    };
}

/// Draws of a move before it is taken from the list of all neighbours, or given up.
const DRAWS: usize = 64;
/// Steps towards the parameter limits when random draws miss them.
const CLIMB_STEPS: usize = 2000;

impl Space {
    /// Checks the choices and the limits.
    ///
    /// # Errors
    /// When nothing can be chosen, a choice fits nowhere, or no architecture is within the limits; names the key.
    pub fn new(config: &SpaceConfig) -> Result<Self, SpaceError> {
        let (config, tables) = Self::tables(config)?;
        Self::of(&config, tables)
    }

    /// The choices of `config`, without those that no target of `loads_in` holds in any stack.
    fn tables(config: &SpaceConfig) -> Result<(SpaceConfig, Tables), SpaceError> {
        let mut tables = Tables::new(config)?;
        loads::restrict(&mut tables, &config.loads_in)?;
        Ok((loads::remaining(config, &tables)?, tables))
    }

    /// Of these tables, of which `config` says the rest.
    fn of(config: &SpaceConfig, tables: Tables) -> Result<Self, SpaceError> {
        let min_parameters = config.min_parameters.unwrap_or(0);
        let max_parameters = config.max_parameters.unwrap_or(u64::MAX);
        if min_parameters > max_parameters {
            return invalid(
                "space.min_parameters",
                format!("{min_parameters} is more than max_parameters = {max_parameters}"),
            );
        }
        let depth = config.depth;
        if let Some(depth) = depth {
            check_depth(depth)?;
        }
        let form = if config.stages.is_empty() {
            AnyForm::Flat(WithMeta(Flat::new(config)?))
        } else {
            AnyForm::Staged(WithMeta(Staged::new(config, &tables)?))
        };
        let loads_in = config.loads_in.clone();
        let choices = Choices { tables, form, depth, min_parameters, max_parameters, loads_in };
        let witness = choices.find_witness()?;
        Ok(Self { choices, witness })
    }

    /// A random member: d_model, depth and each gene drawn evenly, as far as the parameter limits allow.
    pub fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> Architecture {
        for _ in 0..DRAWS {
            let architecture = self.choices.draw(rng);
            if self.choices.within_limits(&architecture) {
                return architecture;
            }
            if let Some(fitted) = self.choices.fitted(&architecture, &architecture) {
                return fitted;
            }
        }
        let start = self.choices.draw(rng);
        self.choices.climb(start, rng).unwrap_or_else(|_| self.witness.clone())
    }

    /// A member that differs from `architecture` in one gene, and what was changed, e.g. `layer 3 mixer gdn → swa`.
    ///
    /// From an architecture outside the space (a reference stack) the nearest member is changed. In a space of one
    /// architecture that one comes back.
    pub fn mutate<R: Rng + ?Sized>(
        &self,
        architecture: &Architecture,
        rng: &mut R,
    ) -> (Architecture, String) {
        with_form!(self.choices, form => {
            let genome = form
                .read(&self.choices.tables, architecture)
                .unwrap_or_else(|_| form.project(&self.choices.tables, architecture));
            for _ in 0..DRAWS {
                if let Some((child, what)) = form.mutate(&self.choices.tables, &genome, rng) {
                    let child = form.express(&self.choices.tables, &child);
                    if child != *architecture && self.choices.within_limits(&child) {
                        return (child, what);
                    }
                    if let Some(child) = self.choices.fitted(architecture, &child) {
                        return (child, format!("{what}, and what must be like it"));
                    }
                }
            }
        });
        // Near the limits most draws miss; the list of all neighbours knows whether any is left.
        let mut neighbours = self.described_neighbours(architecture);
        if neighbours.is_empty() {
            return (self.sample(rng), "drawn anew".to_owned());
        }
        let choice = rng.random_range(0..neighbours.len());
        neighbours.swap_remove(choice)
    }

    /// A member that takes its genes from both parents, which need not be members.
    pub fn recombine<R: Rng + ?Sized>(
        &self,
        a: &Architecture,
        b: &Architecture,
        rng: &mut R,
    ) -> Architecture {
        with_form!(self.choices, form => {
            let read = |parent| {
                form.read(&self.choices.tables, parent).unwrap_or_else(|_| form.project(&self.choices.tables, parent))
            };
            let parents = (read(a), read(b));
            for _ in 0..DRAWS {
                let child = form.express(&self.choices.tables, &form.recombine(&self.choices.tables, &parents.0, &parents.1, rng));
                if child != *a && child != *b && self.choices.within_limits(&child) {
                    return child;
                }
                if let Some(child) = self.choices.fitted(a, &child).filter(|child| child != b) {
                    return child;
                }
            }
        });
        self.mutate(a, rng).0
    }

    /// Every member that differs from `architecture` in one gene, without repeats, in a fixed order.
    ///
    /// An inserted layer is like its neighbour but for the kind of its mixer, else there would be thousands.
    pub fn neighbours(&self, architecture: &Architecture) -> Vec<Architecture> {
        self.described_neighbours(architecture)
            .into_iter()
            .map(|(neighbour, _)| neighbour)
            .collect()
    }

    fn described_neighbours(&self, architecture: &Architecture) -> Vec<(Architecture, String)> {
        with_form!(self.choices, form => {
            let genome = form
                .read(&self.choices.tables, architecture)
                .unwrap_or_else(|_| form.project(&self.choices.tables, architecture));
            let mut seen = std::collections::HashSet::from([architecture.clone()]);
            form.neighbours(&self.choices.tables, &genome)
                .into_iter()
                .map(|(genome, what)| (form.express(&self.choices.tables, &genome), what))
                .filter_map(|(neighbour, what)| {
                    let found = if self.choices.within_limits(&neighbour) {
                        Some(neighbour)
                    } else {
                        self.choices.fitted(architecture, &neighbour)
                    };
                    found.map(|neighbour| (neighbour, what))
                })
                .filter(|(neighbour, _)| seen.insert(neighbour.clone()))
                .collect()
        })
    }

    /// Whether `architecture` is a member.
    ///
    /// # Errors
    /// The first thing that is not a choice of this space, or the limit that is passed.
    pub fn contains(&self, architecture: &Architecture) -> Result<(), SpaceViolation> {
        let tables = &self.choices.tables;
        if architecture.vocab() != tables.vocab {
            return Err(SpaceViolation::Model {
                what: format!("vocab = {}", architecture.vocab()),
            });
        }
        if architecture.tied_embeddings() != tables.tied_embeddings {
            return Err(SpaceViolation::Model {
                what: format!("tied_embeddings = {}", architecture.tied_embeddings()),
            });
        }
        with_form!(self.choices, form => form.read(tables, architecture).map(|_| ())?);
        if self.choices.depth_missed(architecture) > 0 {
            return Err(SpaceViolation::Model {
                what: format!("a depth of {}", architecture.layers().len()),
            });
        }
        if let Some(refusal) =
            loads::refusals(&self.choices.loads_in, architecture).into_iter().next()
        {
            return Err(SpaceViolation::Model {
                what: format!("a stack that does not load in {refusal}"),
            });
        }
        let parameters = parameters(architecture);
        if (self.choices.min_parameters..=self.choices.max_parameters).contains(&parameters) {
            Ok(())
        } else {
            Err(SpaceViolation::Parameters {
                parameters,
                min: self.choices.min_parameters,
                max: self.choices.max_parameters,
            })
        }
    }

    /// Every member, without repeats, in a fixed order; none if there could be more than `limit`.
    pub fn enumerate(&self, limit: usize) -> Option<Vec<Architecture>> {
        let choices = &self.choices;
        if self.size() > limit as f64 {
            return None;
        }
        with_form!(choices, form => {
            let mut seen = std::collections::HashSet::new();
            let all = form.all(&choices.tables).into_iter().map(|genome| form.express(&choices.tables, &genome));
            Some(all.filter(|member| choices.within_limits(member) && seen.insert(member.clone())).collect())
        })
    }

    /// Number of combinations of genes: an upper bound of the number of members, because limits are not counted and
    /// some genes may be without effect (the shape of a mixer that no stage uses).
    pub fn size(&self) -> f64 {
        with_form!(self.choices, form => form.size(&self.choices.tables))
    }

    /// Number of tokens in the vocabulary.
    pub fn vocab(&self) -> u32 {
        self.choices.tables.vocab
    }

    /// Whether the head shares the embedding's matrix.
    pub fn tied_embeddings(&self) -> bool {
        self.choices.tables.tied_embeddings
    }

    /// The number of meta tokens in the middle of the choices.
    pub fn middle_meta_tokens(&self) -> u32 {
        let mut choices = self.choices.tables.meta_tokens.clone();
        choices.sort_unstable();
        choices[choices.len() / 2]
    }

    /// The number of layers in the middle of the range, for stacks that are set beside this space.
    pub fn middle_depth(&self) -> u32 {
        match (self.choices.depth, &self.choices.form) {
            (Some(Range { min, max }), _) => min.midpoint(max),
            (None, AnyForm::Staged(form)) => form.0.middle_mixers(),
            (None, AnyForm::Flat(_)) => unreachable!("a flat space has a range of layers"),
        }
    }

    /// The width in the middle of the choices for a SwiGLU, or where there is none for any FFN; none: the space has no FFN.
    pub fn middle_ffn(&self, d_model: u32) -> Option<u32> {
        let all: Vec<Ffn> =
            self.choices.tables.ffn.iter().filter_map(|choice| choice.at(d_model)).collect();
        let widths = |is_asked: &dyn Fn(&Ffn) -> bool| -> Vec<u32> {
            all.iter().filter(|ffn| is_asked(ffn)).map(|ffn| ffn.active_width()).collect()
        };
        let mut widths = match widths(&|ffn| ffn.kind == FfnKind::SwiGlu) {
            none if none.is_empty() => widths(&|_| true),
            some => some,
        };
        widths.sort_unstable();
        widths.get(widths.len() / 2).copied()
    }

    /// The shape of a mixer in the middle of its choices; none: the space does not have this mixer or this d_model.
    pub fn middle_shape(&self, kind: MixerKind, d_model: u32) -> Option<Mixer> {
        let tables = &self.choices.tables;
        let d = tables.d_model.iter().position(|&choice| choice == d_model)?;
        let shapes = tables.mixers[tables.table(kind)?].shapes(d);
        Some(shapes[shapes.len() / 2].mixer)
    }

    /// What the numbers of [`Space::encode`] are; always the same for a space.
    pub fn coordinates(&self) -> Vec<Coordinate> {
        coordinates::of(&self.choices.tables)
    }

    /// An architecture, member or not, as one number for each of [`Space::coordinates`].
    pub fn encode(&self, architecture: &Architecture) -> Vec<f64> {
        coordinates::encode(&self.choices.tables, architecture)
    }

    /// Choices for the width of the residual stream.
    pub fn d_model(&self) -> &[u32] {
        &self.choices.tables.d_model
    }
}

impl Choices {
    fn within_limits(&self, architecture: &Architecture) -> bool {
        self.depth_missed(architecture) == 0
            && loads::misfits(&self.loads_in, architecture) == 0
            && (self.min_parameters..=self.max_parameters).contains(&parameters(architecture))
    }

    /// A stack like `child` that the targets of `loads_in` hold, other than `parent`, of which it is a change; none where there
    /// are no targets, or none is found.
    fn fitted(&self, parent: &Architecture, child: &Architecture) -> Option<Architecture> {
        if self.loads_in.is_empty() {
            return None;
        }
        let is_member = |stack: &Architecture| {
            with_form!(self, form => form.read(&self.tables, stack).is_ok())
                && self.within_limits(stack)
        };
        loads::of_one_size(parent, child).find(|stack| stack != parent && is_member(stack))
    }

    /// By how many layers the depth is outside its range.
    fn depth_missed(&self, architecture: &Architecture) -> u32 {
        let depth = architecture.layers().len() as u32;
        self.depth
            .map_or(0, |Range { min, max }| min.saturating_sub(depth) + depth.saturating_sub(max))
    }

    fn draw<R: Rng + ?Sized>(&self, rng: &mut R) -> Architecture {
        with_form!(self, form => form.express(&self.tables, &form.random(&self.tables, rng)))
    }

    /// Walks by single genes towards the parameter limits; gives the nearest it came to when it does not arrive.
    fn climb<R: Rng + ?Sized>(
        &self,
        start: Architecture,
        rng: &mut R,
    ) -> Result<Architecture, Architecture> {
        let miss = |architecture: &Architecture| {
            let parameters = parameters(architecture);
            let missed = self.min_parameters.saturating_sub(parameters)
                + parameters.saturating_sub(self.max_parameters);
            (self.depth_missed(architecture), loads::misfits(&self.loads_in, architecture), missed)
        };
        with_form!(self, form => {
            let mut genome = form.project(&self.tables, &start);
            let mut best = (miss(&start), start);
            for _ in 0..CLIMB_STEPS {
                if best.0 == (0, 0, 0) {
                    return Ok(best.1);
                }
                if let Some((next, _)) = form.mutate(&self.tables, &genome, rng) {
                    let architecture = form.express(&self.tables, &next);
                    if let Some(fitted) = self.fitted(&best.1, &architecture) {
                        return Ok(fitted);
                    }
                    let miss = miss(&architecture);
                    if miss <= best.0 {
                        best = (miss, architecture);
                        genome = next;
                    }
                }
            }
            Err(best.1)
        })
    }

    fn find_witness(&self) -> Result<Architecture, SpaceError> {
        let mut rng = witness_rng();
        let mut nearest = None;
        for _ in 0..8 {
            let start = self.draw(&mut rng);
            match self.climb(start, &mut rng) {
                Ok(witness) => return Ok(witness),
                Err(missed) => nearest = Some(missed),
            }
        }
        let nearest = nearest.expect("eight climbs were made and none arrived");
        if self.depth_missed(&nearest) > 0 {
            let depth = nearest.layers().len();
            return invalid(
                "space.depth",
                format!("the stages cannot make it; the nearest found has {depth} layers"),
            );
        }
        let refusals = loads::refusals(&self.loads_in, &nearest);
        if !refusals.is_empty() {
            return invalid(
                "space.loads_in",
                format!(
                    "no architecture of this space was found that loads there; the nearest is {nearest}, and {}",
                    refusals.join("; ")
                ),
            );
        }
        let parameters = parameters(&nearest);
        if parameters > self.max_parameters {
            let limit = self.max_parameters;
            invalid(
                "space.max_parameters",
                format!(
                    "no architecture of this space has so few parameters: the limit is {limit}, \
                     the smallest found has {parameters} ({nearest})"
                ),
            )
        } else {
            let limit = self.min_parameters;
            invalid(
                "space.min_parameters",
                format!(
                    "no architecture of this space has so many parameters: the limit is {limit}, \
                     the largest found has {parameters} ({nearest})"
                ),
            )
        }
    }
}

/// The check of a space is the same each time, whatever the seed of the campaign.
fn witness_rng() -> rand::rngs::ChaCha8Rng {
    rand::rngs::ChaCha8Rng::seed_from_u64(0)
}
