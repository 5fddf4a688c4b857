//! The checked choices of a space: for every mixer and every d_model, the shapes that exist.
//!
//! A shape is known by its genes (one index per parameter of the mixer into its list of choices), so that "the same
//! genes at another d_model" has a meaning when heads or widths are derived.

use super::choices::{KindChoices, Listed};
use super::config::{FfnChoice, SpaceConfig};
use super::error::{SpaceError, invalid};
use crate::architecture::{
    Choice, Experts, Ffn, FfnKind, Gene, MAX_WIDTH, Misfit, Mixer, MixerKind, Settings, Turn,
};

/// More shapes than this of one mixer at one d_model are no longer a choice that a search could make.
const MAX_SHAPES: usize = 1 << 16;

/// A count of a mixture of experts, with its name.
pub(super) type ExpertCount = (&'static str, fn(Experts) -> u32);

const EXPERT_COUNTS: [ExpertCount; 3] = [
    ("experts", |of| of.experts),
    ("experts per token", |of| of.per_token),
    ("shared experts", |of| of.shared),
];

/// What every form of space draws from.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    pub(super) vocab: u32,
    pub(super) tied_embeddings: bool,
    pub(super) meta_tokens: Vec<u32>,
    pub(super) d_model: Vec<u32>,
    /// The same choices at every d_model.
    pub(super) ffn: Vec<FfnChoice>,
    pub(super) mixers: Vec<MixerTable>,
    /// Whether a layer may be an FFN alone.
    pub(super) ffn_alone: bool,
}

#[derive(Debug, Clone)]
pub(super) struct MixerTable {
    pub(super) kind: MixerKind,
    /// In the order in which they are drawn, at last those that are not.
    pub(super) genes: Vec<Choices>,
    /// For each d_model, never empty.
    pub(super) shapes: Vec<Vec<Shape>>,
}

/// A gene of a mixer with its choices.
#[derive(Debug, Clone)]
pub(super) struct Choices {
    gene: &'static Gene,
    /// None: derived from the other genes and d_model, or left to the reference layer.
    values: Vec<Option<u32>>,
}

#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Index into the values of each gene.
    pub(super) genes: Vec<usize>,
    pub(super) mixer: Mixer,
}

impl Tables {
    pub(super) fn new(config: &SpaceConfig) -> Result<Self, SpaceError> {
        in_range("space.vocab", &[config.vocab])?;
        check_list("space.meta_tokens", &config.meta_tokens)?;
        let some: Vec<u32> = config.meta_tokens.iter().copied().filter(|&n| n > 0).collect();
        in_range("space.meta_tokens", &some)?;
        check_list("space.d_model", &config.d_model)?;
        in_range("space.d_model", &config.d_model)?;
        check_list("space.ffn", &config.ffn)?;
        for choice in &config.ffn {
            for &d_model in &config.d_model {
                if let Some(ffn) = choice.at(d_model) {
                    in_range("space.ffn", &[ffn.width])?;
                    ffn.check().or_else(|what| invalid("space.ffn", what))?;
                }
            }
        }
        let ffn_alone = config.mixers.may_be_none();
        if ffn_alone && config.ffn.iter().all(|choice| *choice == FfnChoice::None) {
            return invalid(
                "space.mixers.none",
                "a layer without a mixer needs an FFN, and space.ffn lists none",
            );
        }
        let mut mixers = Vec::new();
        for kind in MixerKind::ALL {
            if let Some(choices) = config.mixers.of(kind) {
                mixers.push(MixerTable::new(kind, genes(kind, choices)?, &config.d_model)?);
            }
        }
        if mixers.is_empty() {
            let names: Vec<&str> = MixerKind::ALL.iter().map(|kind| kind.name()).collect();
            return invalid(
                "space.mixers",
                format!(
                    "no mixer to choose from; add a table such as [space.mixers.gdn] (one of {})",
                    names.join(", ")
                ),
            );
        }
        Ok(Self {
            vocab: config.vocab,
            tied_embeddings: config.tied_embeddings,
            meta_tokens: config.meta_tokens.clone(),
            d_model: config.d_model.clone(),
            ffn: config.ffn.clone(),
            mixers,
            ffn_alone,
        })
    }

    /// The names of the kinds of FFN that there are beside another, but one of them.
    pub(super) fn ffn_kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        let is_there = |name: &&str| self.some_ffns().any(|kind| kind.name() == *name);
        FfnKind::ALL.into_iter().map(FfnKind::name).filter(is_there).skip(1)
    }

    /// The counts of experts of which there are several to choose from, by their names.
    pub(super) fn expert_counts(&self) -> impl Iterator<Item = &'static ExpertCount> + '_ {
        EXPERT_COUNTS.iter().filter(|(_, count)| {
            let mut counts = self.some_ffns().filter_map(FfnKind::experts).map(count);
            counts.next().is_some_and(|first| counts.any(|other| other != first))
        })
    }

    /// The kinds of all choices that are an FFN.
    fn some_ffns(&self) -> impl Iterator<Item = FfnKind> + '_ {
        self.ffn.iter().filter_map(|choice| match choice {
            FfnChoice::Some(kind, _) => Some(*kind),
            FfnChoice::None => None,
        })
    }

    /// The FFN choice that gives `ffn` at `d`.
    pub(super) fn ffn_index(&self, d: usize, ffn: Option<Ffn>) -> Option<usize> {
        self.ffn.iter().position(|choice| choice.at(self.d_model[d]) == ffn)
    }

    /// The FFN choice that at `d` is nearest in width and in its experts, among those of the same kind if there are any.
    pub(super) fn nearest_ffn(&self, d: usize, ffn: Option<Ffn>) -> usize {
        const OTHER_KIND: u64 = 1 << 32;
        let width = |ffn: Option<Ffn>| ffn.map_or(1, Ffn::active_width);
        nearest(self.ffn.iter().map(|choice| {
            let own = choice.at(self.d_model[d]);
            let kinds = own.zip(ffn).map(|(own, ffn)| (own.kind, ffn.kind));
            let is_other = kinds.is_some_and(|(own, other)| own.name() != other.name());
            let experts = kinds.and_then(|(own, other)| own.experts().zip(other.experts()));
            let unlike = experts.map_or(0, |(own, other)| {
                EXPERT_COUNTS.iter().map(|(_, n)| ratio_distance(n(own) + 1, n(other) + 1)).sum()
            });
            ratio_distance(width(own), width(ffn)) + unlike + if is_other { OTHER_KIND } else { 0 }
        }))
    }

    /// An FFN choice at `d`, for people: the width, and the kind where it is no SwiGLU.
    pub(super) fn show_ffn(&self, d: usize, ffn: usize) -> String {
        self.ffn[ffn].at(self.d_model[d]).map_or_else(|| "none".to_owned(), Ffn::choice)
    }

    pub(super) fn nearest_d_model(&self, d_model: u32) -> usize {
        nearest(self.d_model.iter().map(|&choice| ratio_distance(choice, d_model)))
    }

    pub(super) fn nearest_meta_tokens(&self, meta_tokens: u32) -> usize {
        nearest(self.meta_tokens.iter().map(|&choice| ratio_distance(choice + 1, meta_tokens + 1)))
    }

    pub(super) fn table(&self, kind: MixerKind) -> Option<usize> {
        self.mixers.iter().position(|table| table.kind == kind)
    }
}

impl MixerTable {
    fn new(kind: MixerKind, genes: Vec<Choices>, d_model: &[u32]) -> Result<Self, SpaceError> {
        let key = |gene: &str| format!("space.mixers.{}.{gene}", kind.name());
        let sizes: Vec<usize> = genes.iter().map(|gene| gene.values.len()).collect();
        let product = sizes.iter().fold(1_usize, |product, &size| product.saturating_mul(size));
        if product > MAX_SHAPES {
            let key = format!("space.mixers.{}", kind.name());
            return invalid(
                key,
                format!("{product} combinations of choices; at most {MAX_SHAPES} are possible"),
            );
        }
        let mut used: Vec<Vec<bool>> =
            genes.iter().map(|gene| vec![false; gene.values.len()]).collect();
        let mut shapes = Vec::new();
        let mut misfits: Vec<(Vec<usize>, Misfit)> = Vec::new();
        for &d in d_model {
            let mut at_d: Vec<Shape> = Vec::new();
            let mut last = None;
            for indices in combinations(&sizes) {
                match resolve(kind, d, &genes, &indices) {
                    Ok(mixer) => {
                        for (gene, &index) in indices.iter().enumerate() {
                            used[gene][index] = true;
                        }
                        if at_d.iter().all(|shape| shape.mixer != mixer) {
                            at_d.push(Shape { genes: indices, mixer });
                        }
                    }
                    Err(misfit) => {
                        misfits.push((indices, misfit.clone()));
                        last = Some(misfit);
                    }
                }
            }
            if at_d.is_empty() {
                let (gene, what) =
                    last.expect("there is at least one combination, and none of them is a shape");
                return invalid(
                    key(gene),
                    format!("no choice is possible at d_model = {d}: {what}"),
                );
            }
            shapes.push(at_d);
        }
        // A choice that no architecture can ever make is a mistake in the file.
        for (gene, used) in used.iter().enumerate() {
            if let Some(unused) = used.iter().position(|used| !used) {
                let (_, (_, what)) = misfits
                    .iter()
                    .find(|(indices, _)| indices[gene] == unused)
                    .expect("a value that is in no shape is in a combination that does not fit");
                return invalid(
                    key(genes[gene].name()),
                    format!("{} fits nowhere: {what}", genes[gene].show(unused)),
                );
            }
        }
        Ok(Self { kind, genes, shapes })
    }

    /// How many of the genes are drawn.
    pub(super) fn drawn(&self) -> usize {
        self.genes.iter().filter(|gene| gene.is_drawn()).count()
    }

    pub(super) fn shapes(&self, d: usize) -> &[Shape] {
        &self.shapes[d]
    }

    pub(super) fn index_of(&self, d: usize, mixer: &Mixer) -> Option<usize> {
        self.shapes[d].iter().position(|shape| shape.mixer == *mixer)
    }

    /// The shape at `d` whose genes are most like `genes`; equal genes if they exist there.
    pub(super) fn most_like(&self, d: usize, genes: &[usize]) -> usize {
        nearest(self.shapes[d].iter().map(|shape| gene_distance(&shape.genes, genes)))
    }

    /// The shape at `d` with `value` for `gene`, the other genes as near to `genes` as they can be.
    pub(super) fn with_gene(
        &self,
        d: usize,
        genes: &[usize],
        gene: usize,
        value: usize,
    ) -> Option<usize> {
        let candidates =
            self.shapes[d].iter().enumerate().filter(|(_, shape)| shape.genes[gene] == value);
        candidates
            .min_by_key(|(_, shape)| gene_distance(&shape.genes, genes))
            .map(|(index, _)| index)
    }

    /// The shape at `d` nearest in heads and widths to a mixer of any kind.
    pub(super) fn nearest_shape(&self, d: usize, mixer: &Mixer) -> usize {
        let target = mixer.sizes();
        nearest(self.shapes[d].iter().map(|shape| {
            let own = shape.mixer.sizes();
            own.iter().zip(target).map(|(&a, b)| ratio_distance(a, b)).sum()
        }))
    }

    pub(super) fn values(&self, gene: usize) -> usize {
        self.genes[gene].choices()
    }

    /// Says how two shapes of this mixer differ, e.g. `window 64 → 128`.
    pub(super) fn difference(&self, from: &Shape, to: &Shape) -> String {
        let differences: Vec<String> = self
            .genes
            .iter()
            .enumerate()
            .filter(|(index, _)| from.genes[*index] != to.genes[*index])
            .map(|(index, gene)| {
                format!(
                    "{} {} → {}",
                    gene.name(),
                    gene.show(from.genes[index]),
                    gene.show(to.genes[index])
                )
            })
            .collect();
        differences.join(", ")
    }
}

impl Choices {
    /// Of a gene whose key in the file is `key`.
    fn new(key: &str, gene: &'static Gene, listed: Option<&Listed>) -> Result<Self, SpaceError> {
        let values = match listed {
            None | Some(Listed::Auto) => vec![None],
            Some(Listed::Numbers(numbers)) => {
                check_list(key, numbers)?;
                within(key, gene.within, numbers)?;
                numbers.iter().copied().map(Some).collect()
            }
            Some(Listed::Flags(flags)) => {
                check_list(key, flags)?;
                flags.iter().map(|&flag| Some(flag.into())).collect()
            }
            Some(Listed::Forms(forms)) => {
                check_list(key, forms)?;
                let Choice::Forms(all) = gene.choice else {
                    unreachable!("forms are read of genes that have them")
                };
                let index = |form| all.iter().position(|known| known == form);
                forms.iter().map(|form| Some(index(form)? as u32)).collect()
            }
        };
        Ok(Self { gene, values })
    }

    pub(super) fn name(&self) -> &'static str {
        self.gene.name
    }

    pub(super) fn choices(&self) -> usize {
        self.values.len()
    }

    fn is_drawn(&self) -> bool {
        self.gene.turn != Turn::IfChosen || self.choices() > 1
    }

    pub(super) fn show(&self, index: usize) -> String {
        match self.values[index] {
            None => "auto".to_owned(),
            Some(n) => self.gene.show(n),
        }
    }
}

/// The genes of a mixer that the file names, in the order in which they are drawn.
fn genes(kind: MixerKind, choices: &KindChoices) -> Result<Vec<Choices>, SpaceError> {
    let key = |gene: &str| format!("space.mixers.{}.{gene}", kind.name());
    if let Some([first, second]) = kind.row().not_both_auto
        && choices.is_auto(first)
        && choices.is_auto(second)
    {
        return invalid(
            key(first),
            format!("{first} and {second} cannot both be \"auto\"; list one of them"),
        );
    }
    let of_turn = |turn| choices.genes().filter(move |(gene, _)| gene.turn == turn);
    let mut genes = [Turn::First, Turn::Late, Turn::IfChosen]
        .into_iter()
        .flat_map(of_turn)
        .map(|(gene, listed)| Choices::new(&key(gene.name), gene, listed))
        .collect::<Result<Vec<_>, _>>()?;
    genes.sort_by_key(|gene| !gene.is_drawn());
    Ok(genes)
}

/// An FFN that is no choice, as a refusal says it.
pub(super) fn described(ffn: Ffn) -> String {
    format!("an FFN of {}", ffn.choice())
}

/// The mixer that a choice of its genes makes at `d_model`.
fn resolve(
    kind: MixerKind,
    d_model: u32,
    genes: &[Choices],
    indices: &[usize],
) -> Result<Mixer, Misfit> {
    let mut settings = Settings::default();
    for (gene, &index) in genes.iter().zip(indices) {
        settings.set(gene.name(), gene.values[index]);
    }
    kind.derive(d_model, &mut settings)?;
    let mixer = kind.build(&settings);
    mixer.check().map_err(|what| ("heads", what))?;
    Ok(mixer)
}

/// Every choice of one index below each of `sizes`, the last varying fastest.
pub(super) fn combinations(sizes: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let number_of_them: usize = sizes.iter().product();
    (0..number_of_them).map(move |mut number| {
        let mut indices = vec![0; sizes.len()];
        for (index, &size) in indices.iter_mut().zip(sizes).rev() {
            *index = number % size;
            number /= size;
        }
        indices
    })
}

fn ratio_distance(a: u32, b: u32) -> u64 {
    ((f64::from(a) / f64::from(b)).log2().abs() * 1000.0) as u64
}

/// Different genes count first, then how far apart they are in their lists.
fn gene_distance(a: &[usize], b: &[usize]) -> u64 {
    a.iter().zip(b).map(|(&a, &b)| if a == b { 0 } else { 1000 + a.abs_diff(b) as u64 }).sum()
}

/// The index of the smallest distance, the first of equals.
fn nearest(distances: impl Iterator<Item = u64>) -> usize {
    distances.enumerate().min_by_key(|&(_, distance)| distance).map_or(0, |(index, _)| index)
}

pub(super) fn check_list<T: PartialEq + serde::Serialize>(
    key: &str,
    values: &[T],
) -> Result<(), SpaceError> {
    if values.is_empty() {
        return invalid(key, "an empty list leaves nothing to choose");
    }
    match (1..values.len()).find(|&index| values[..index].contains(&values[index])) {
        Some(index) => {
            let twice = serde_json::to_string(&values[index]).unwrap_or_default();
            invalid(key, format!("{twice} is listed twice"))
        }
        None => Ok(()),
    }
}

fn in_range(key: &str, values: &[u32]) -> Result<(), SpaceError> {
    within(key, (1, MAX_WIDTH), values)
}

fn within(key: &str, (least, largest): (u32, u32), values: &[u32]) -> Result<(), SpaceError> {
    match values.iter().find(|n| !(least..=largest).contains(n)) {
        Some(n) => invalid(key, format!("must be {least} to {largest}, got {n}")),
        None => Ok(()),
    }
}
