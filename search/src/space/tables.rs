//! The checked choices of a space: for every mixer and every d_model, the shapes that exist.
//!
//! A shape is known by its genes (one index per parameter of the mixer into its list of choices), so that "the same
//! genes at another d_model" has a meaning when heads or widths are derived.

use super::config::{
    AttentionChoices, Counts, DeltaProductChoices, FfnChoice, LogLinearDeltaChoices,
    LogLinearMamba2Choices, Mamba2Choices, SpaceConfig, WindowChoices,
};
use super::{SpaceError, invalid};
use crate::architecture::{
    Attention, DeltaNet, DeltaOptions, DeltaProduct, GatedDeltaNet, MAX_WIDTH, Mamba2, Mixer,
    MixerKind,
};

/// More shapes than this of one mixer at one d_model are no longer a choice that a search could make.
const MAX_SHAPES: usize = 1 << 16;

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
}

#[derive(Debug, Clone)]
pub(super) struct MixerTable {
    pub(super) kind: MixerKind,
    pub(super) genes: Vec<Gene>,
    /// For each d_model, never empty.
    shapes: Vec<Vec<Shape>>,
}

/// A parameter of a mixer with its choices.
#[derive(Debug, Clone)]
pub(super) struct Gene {
    pub(super) name: &'static str,
    values: Vec<Setting>,
}

/// One choice of a gene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    /// Derived from the other genes and d_model.
    Auto,
    Value(u32),
}

#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Index into the values of each gene.
    pub(super) genes: Vec<usize>,
    pub(super) mixer: Mixer,
}

/// Why a choice of genes is no mixer: the gene to blame, expected and got.
type Misfit = (&'static str, String);

impl Tables {
    pub(super) fn new(config: &SpaceConfig) -> Result<Self, SpaceError> {
        in_range("space.vocab", &[config.vocab])?;
        listed("space.meta_tokens", &config.meta_tokens)?;
        let some: Vec<u32> = config.meta_tokens.iter().copied().filter(|&n| n > 0).collect();
        in_range("space.meta_tokens", &some)?;
        listed("space.d_model", &config.d_model)?;
        in_range("space.d_model", &config.d_model)?;
        listed("space.ffn", &config.ffn)?;
        for choice in &config.ffn {
            for &d_model in &config.d_model {
                if let Some(width) = choice.width(d_model) {
                    in_range("space.ffn", &[width])?;
                }
            }
        }
        let mut mixers = Vec::new();
        for (kind, genes) in genes_by_kind(config)? {
            mixers.push(MixerTable::new(kind, genes, &config.d_model)?);
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
        })
    }

    /// The FFN choice that gives `width` at `d`.
    pub(super) fn ffn_index(&self, d: usize, width: Option<u32>) -> Option<usize> {
        self.ffn.iter().position(|choice| choice.width(self.d_model[d]) == width)
    }

    /// The FFN choice whose width at `d` is nearest.
    pub(super) fn nearest_ffn(&self, d: usize, width: Option<u32>) -> usize {
        nearest(self.ffn.iter().map(|choice| {
            ratio_distance(choice.width(self.d_model[d]).unwrap_or(1), width.unwrap_or(1))
        }))
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
    fn new(kind: MixerKind, genes: Vec<Gene>, d_model: &[u32]) -> Result<Self, SpaceError> {
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
                let settings: Vec<Setting> =
                    genes.iter().zip(&indices).map(|(gene, &index)| gene.values[index]).collect();
                match resolve(kind, d, &settings) {
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
                    key(genes[gene].name),
                    format!("{} fits nowhere: {what}", genes[gene].show(unused)),
                );
            }
        }
        Ok(Self { kind, genes, shapes })
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
        let target = sizes(mixer);
        nearest(self.shapes[d].iter().map(|shape| {
            let own = sizes(&shape.mixer);
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
                    gene.name,
                    gene.show(from.genes[index]),
                    gene.show(to.genes[index])
                )
            })
            .collect();
        differences.join(", ")
    }
}

/// The genes that are on or off.
const FLAGS: [&str; 5] =
    ["qk_norm", "output_gate", "negative_eigenvalues", "short_conv", "selective_rope"];

impl Gene {
    pub(super) fn choices(&self) -> usize {
        self.values.len()
    }

    fn show(&self, index: usize) -> String {
        match self.values[index] {
            Setting::Auto => "auto".to_owned(),
            Setting::Value(n) if FLAGS.contains(&self.name) => (n == 1).to_string(),
            Setting::Value(n) => n.to_string(),
        }
    }

    fn list(key: &str, name: &'static str, values: &[u32]) -> Result<Self, SpaceError> {
        listed(key, values)?;
        in_range(key, values)?;
        Ok(Self { name, values: values.iter().copied().map(Setting::Value).collect() })
    }

    fn counts(key: &str, name: &'static str, counts: &Counts) -> Result<Self, SpaceError> {
        match counts {
            Counts::Auto => Ok(Self { name, values: vec![Setting::Auto] }),
            Counts::List(list) => Self::list(key, name, list),
        }
    }

    fn flags(key: &str, name: &'static str, flags: &[bool]) -> Result<Self, SpaceError> {
        listed(key, flags)?;
        Ok(Self { name, values: flags.iter().map(|&flag| Setting::Value(flag.into())).collect() })
    }
}

/// The genes of every mixer that the file names, in the order in which [`resolve`] takes them.
fn genes_by_kind(config: &SpaceConfig) -> Result<Vec<(MixerKind, Vec<Gene>)>, SpaceError> {
    let mut kinds = Vec::new();
    if let Some(choices) = &config.mixers.attn {
        kinds.push((MixerKind::FullAttention, attention("attn", choices)?));
    }
    if let Some(choices) = &config.mixers.swa {
        let WindowChoices { heads, kv_heads, head_width, window, qk_norm, selective_rope } =
            choices.clone();
        let shared = AttentionChoices { heads, kv_heads, head_width, qk_norm, selective_rope };
        let mut genes = attention("swa", &shared)?;
        genes.push(Gene::list("space.mixers.swa.window", "window", &window)?);
        kinds.push((MixerKind::SlidingWindow, genes));
    }
    for (kind, choices) in
        [(MixerKind::DeltaNet, &config.mixers.dn), (MixerKind::GatedDeltaNet, &config.mixers.gdn)]
    {
        if let Some(choices) = choices {
            let reference_gate = vec![kind == MixerKind::GatedDeltaNet];
            let product = DeltaProductChoices {
                heads: choices.heads.clone(),
                key_width: choices.key_width.clone(),
                value_width: choices.value_width.clone(),
                steps: vec![1],
                output_gate: choices.output_gate.clone().unwrap_or(reference_gate),
                value_groups: choices.value_groups.clone(),
                negative_eigenvalues: choices.negative_eigenvalues.clone(),
                short_conv: choices.short_conv.clone(),
                selective_rope: choices.selective_rope.clone(),
            };
            kinds.push((kind, delta(kind, &product)?));
        }
    }
    for (kind, choices) in [
        (MixerKind::DeltaProduct, &config.mixers.dp),
        (MixerKind::GatedDeltaProduct, &config.mixers.gdp),
    ] {
        if let Some(choices) = choices {
            kinds.push((kind, delta(kind, choices)?));
        }
    }
    if let Some(Mamba2Choices { heads, head_width, state_width }) = &config.mixers.m2 {
        let genes = vec![
            Gene::counts("space.mixers.m2.heads", "heads", heads)?,
            Gene::list("space.mixers.m2.head_width", "head_width", head_width)?,
            Gene::list("space.mixers.m2.state_width", "state_width", state_width)?,
        ];
        kinds.push((MixerKind::Mamba2, genes));
    }
    if let Some(choices) = &config.mixers.lgdn {
        let LogLinearDeltaChoices { levels, .. } = choices;
        let product = DeltaProductChoices {
            heads: choices.heads.clone(),
            key_width: choices.key_width.clone(),
            value_width: choices.value_width.clone(),
            steps: vec![1],
            output_gate: choices.output_gate.clone(),
            value_groups: choices.value_groups.clone(),
            negative_eigenvalues: choices.negative_eigenvalues.clone(),
            short_conv: choices.short_conv.clone(),
            selective_rope: choices.selective_rope.clone(),
        };
        let mut genes = delta(MixerKind::LogLinearGatedDeltaNet, &product)?;
        genes.push(Gene::list("space.mixers.lgdn.levels", "levels", levels)?);
        kinds.push((MixerKind::LogLinearGatedDeltaNet, genes));
    }
    if let Some(LogLinearMamba2Choices { heads, head_width, state_width, levels }) =
        &config.mixers.lm2
    {
        let genes = vec![
            Gene::counts("space.mixers.lm2.heads", "heads", heads)?,
            Gene::list("space.mixers.lm2.head_width", "head_width", head_width)?,
            Gene::list("space.mixers.lm2.state_width", "state_width", state_width)?,
            Gene::list("space.mixers.lm2.levels", "levels", levels)?,
        ];
        kinds.push((MixerKind::LogLinearMamba2, genes));
    }
    Ok(kinds)
}

fn attention(name: &str, choices: &AttentionChoices) -> Result<Vec<Gene>, SpaceError> {
    let AttentionChoices { heads, kv_heads, head_width, qk_norm, selective_rope } = choices;
    let key = |gene: &str| format!("space.mixers.{name}.{gene}");
    if *heads == Counts::Auto && *head_width == Counts::Auto {
        return invalid(
            key("heads"),
            "heads and head_width cannot both be \"auto\"; list one of them",
        );
    }
    Ok(vec![
        Gene::counts(&key("heads"), "heads", heads)?,
        Gene::counts(&key("kv_heads"), "kv_heads", kv_heads)?,
        Gene::counts(&key("head_width"), "head_width", head_width)?,
        Gene::flags(&key("qk_norm"), "qk_norm", qk_norm)?,
        Gene::flags(&key("selective_rope"), "selective_rope", selective_rope)?,
    ])
}

/// The genes of a member of the delta family.
fn delta(kind: MixerKind, choices: &DeltaProductChoices) -> Result<Vec<Gene>, SpaceError> {
    let key = |gene: &str| format!("space.mixers.{}.{gene}", kind.name());
    Ok(vec![
        Gene::counts(&key("heads"), "heads", &choices.heads)?,
        Gene::list(&key("key_width"), "key_width", &choices.key_width)?,
        Gene::counts(&key("value_width"), "value_width", &choices.value_width)?,
        Gene::list(&key("steps"), "steps", &choices.steps)?,
        Gene::flags(&key("output_gate"), "output_gate", &choices.output_gate)?,
        Gene::list(&key("value_groups"), "value_groups", &choices.value_groups)?,
        Gene::flags(
            &key("negative_eigenvalues"),
            "negative_eigenvalues",
            &choices.negative_eigenvalues,
        )?,
        Gene::flags(&key("short_conv"), "short_conv", &choices.short_conv)?,
        Gene::flags(&key("selective_rope"), "selective_rope", &choices.selective_rope)?,
    ])
}

/// The mixer that the settings of its genes make at `d_model`.
fn resolve(kind: MixerKind, d_model: u32, settings: &[Setting]) -> Result<Mixer, Misfit> {
    let divided = |gene, total: u32, by: u32, by_name: &str| {
        if by > 0 && total >= by && total.is_multiple_of(by) {
            Ok(total / by)
        } else {
            Err((gene, format!("{by_name} {by} does not divide {total}")))
        }
    };
    let given = |setting| match setting {
        Setting::Value(n) => n,
        Setting::Auto => unreachable!("this gene has no derived form"),
    };
    let mixer = match kind {
        MixerKind::FullAttention | MixerKind::SlidingWindow => {
            let (heads, head_width) = match (settings[0], settings[2]) {
                (Setting::Value(heads), Setting::Value(width)) => (heads, width),
                (Setting::Value(heads), Setting::Auto) => {
                    let width = divided("heads", d_model, heads, "heads =")?;
                    if width % 2 == 1 {
                        return Err((
                            "heads",
                            format!(
                                "{heads} heads of d_model {d_model} would be {width} wide, odd"
                            ),
                        ));
                    }
                    (heads, width)
                }
                (Setting::Auto, Setting::Value(width)) => {
                    (divided("head_width", d_model, width, "head_width =")?, width)
                }
                (Setting::Auto, Setting::Auto) => unreachable!("refused when the genes were made"),
            };
            let kv_heads = match settings[1] {
                Setting::Auto => heads,
                Setting::Value(kv_heads) => kv_heads,
            };
            if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
                return Err((
                    "kv_heads",
                    format!("{kv_heads} kv_heads do not divide {heads} heads"),
                ));
            }
            if !head_width.is_multiple_of(2) {
                return Err((
                    "head_width",
                    format!("must be even for rotary positions, got {head_width}"),
                ));
            }
            let qk_norm = given(settings[3]) == 1;
            let selective_rope = given(settings[4]) == 1;
            let window = settings.get(5).copied().map(given);
            Mixer::Attention(Attention {
                heads,
                kv_heads,
                head_width,
                window,
                qk_norm,
                selective_rope,
            })
        }
        MixerKind::DeltaNet
        | MixerKind::GatedDeltaNet
        | MixerKind::DeltaProduct
        | MixerKind::GatedDeltaProduct
        | MixerKind::LogLinearGatedDeltaNet => {
            let decay = !matches!(kind, MixerKind::DeltaNet | MixerKind::DeltaProduct);
            let key_width = given(settings[1]);
            let heads = match settings[0] {
                Setting::Value(heads) => heads,
                // H·K = ¾ d: with V = 2 K the mixer then has about 6 d² parameters, as in arXiv 2412.06464
                Setting::Auto if decay => ((3 * d_model + 2 * key_width) / (4 * key_width)).max(1),
                Setting::Auto => divided("key_width", d_model, key_width, "key_width =")?,
            };
            let value_width = match settings[2] {
                Setting::Value(width) => width,
                Setting::Auto if decay => 2 * key_width,
                Setting::Auto => key_width,
            };
            let steps = given(settings[3]);
            let output_gate = given(settings[4]) == 1;
            let options = DeltaOptions {
                value_groups: given(settings[5]),
                negative_eigenvalues: given(settings[6]) == 1,
                short_conv: given(settings[7]) == 1,
                selective_rope: given(settings[8]) == 1,
            };
            match kind {
                MixerKind::DeltaNet => Mixer::DeltaNet(DeltaNet {
                    heads,
                    key_width,
                    value_width,
                    output_gate,
                    options,
                }),
                MixerKind::GatedDeltaNet | MixerKind::LogLinearGatedDeltaNet => {
                    Mixer::GatedDeltaNet(GatedDeltaNet {
                        heads,
                        key_width,
                        value_width,
                        output_gate,
                        levels: settings.get(9).copied().map(given),
                        options,
                    })
                }
                _ => Mixer::DeltaProduct(DeltaProduct {
                    heads,
                    key_width,
                    value_width,
                    steps,
                    decay,
                    output_gate,
                    options,
                }),
            }
        }
        MixerKind::Mamba2 | MixerKind::LogLinearMamba2 => {
            let head_width = given(settings[1]);
            let heads = match settings[0] {
                Setting::Value(heads) => heads,
                Setting::Auto => divided("head_width", 2 * d_model, head_width, "head_width =")?,
            };
            let state_width = given(settings[2]);
            let levels = settings.get(3).copied().map(given);
            Mixer::Mamba2(Mamba2 { heads, head_width, state_width, levels })
        }
    };
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

/// Heads, width of what is stored by, width of what is stored: comparable between kinds.
fn sizes(mixer: &Mixer) -> [u32; 3] {
    match *mixer {
        Mixer::Attention(a) => [a.heads, a.head_width, a.head_width],
        Mixer::DeltaNet(_) | Mixer::GatedDeltaNet(_) | Mixer::DeltaProduct(_) => {
            let family = mixer.delta().expect("a member of the family");
            [family.heads, family.key_width, family.value_width]
        }
        Mixer::Mamba2(m) => [m.heads, m.state_width, m.head_width],
    }
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

pub(super) fn listed<T: PartialEq + serde::Serialize>(
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
    match values.iter().find(|n| !(1..=MAX_WIDTH).contains(n)) {
        Some(n) => invalid(key, format!("must be 1 to {MAX_WIDTH}, got {n}")),
        None => Ok(()),
    }
}
