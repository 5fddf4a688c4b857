//! Products of matrices in bf16 that add in fp32: by cuBLASLt on a GPU, plainly on the host for the emulator.
//!
//! cuBLASLt is loaded at run time from where NVRTC lies. How a shape is computed is asked of its heuristics once; a
//! product is then one call, which a graph records like any launch.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::OnceLock;

use cudarc::cublaslt::{result, sys};

use super::chunked::Rows;
use super::compiler::load_libraries;
use super::{Error, Machine, bf16_bits, bf16_value};

/// Scratch memory that a product may use: what NVIDIA recommends for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;

/// y = x Wᵀ, or y += x Wᵀ.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// What and how large.
    pub shape: Shape,
    /// bf16 `[rows, inputs]`.
    pub x: Rows,
    /// bf16 `[outputs, inputs]` without gaps; a multiple of 16.
    pub weight: u64,
    /// `[rows, outputs]`.
    pub y: Rows,
}

/// The extents of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Positions.
    pub rows: usize,
    /// Rows of W, a multiple of 8.
    pub outputs: usize,
    /// Columns of W, a multiple of 8.
    pub inputs: usize,
    /// Whether y is added to.
    pub adds: bool,
    /// Whether y is f32, else bf16.
    pub wide: bool,
}

impl Shape {
    /// Floating-point operations.
    pub fn flops(&self) -> f64 {
        2.0 * [self.rows, self.outputs, self.inputs].map(|n| n as f64).iter().product::<f64>()
    }
}

impl Product {
    /// # Errors
    /// When a tensor core cannot read it.
    pub fn check(&self) -> Result<(), Error> {
        let Shape { rows, outputs, inputs, .. } = self.shape;
        let whole = |n: usize| n > 0 && n.is_multiple_of(8);
        let strides = self.x.stride >= inputs && self.y.stride >= outputs;
        let aligned = [self.x.address, self.weight, self.y.address].iter().all(|a| a % 16 == 0);
        if rows > 0
            && [outputs, inputs, self.x.stride, self.y.stride].into_iter().all(whole)
            && strides
            && aligned
        {
            return Ok(());
        }
        Err(Error::Shape {
            what: "the widths of a product".to_owned(),
            expected: "multiples of 8, of at least one row".to_owned(),
            got: format!(
                "{rows}×{inputs} ({} apart) by {inputs}×{outputs} ({} apart)",
                self.x.stride, self.y.stride
            ),
        })
    }

    /// The same on the host, through a machine's memory.
    pub(super) fn on_host(&self, machine: &mut (impl Machine + ?Sized)) -> Result<(), Error> {
        self.check()?;
        let Shape { rows, outputs, inputs, adds, wide } = self.shape;
        let mut get = |address: u64, count: usize| -> Result<Vec<f32>, Error> {
            let mut bits = vec![0_u16; count];
            machine.download(address, bytemuck::cast_slice_mut(&mut bits))?;
            Ok(bits.into_iter().map(bf16_value).collect())
        };
        let x = get(self.x.address, (rows - 1) * self.x.stride + inputs)?;
        let weight = get(self.weight, outputs * inputs)?;
        let count = (rows - 1) * self.y.stride + outputs;
        // what lies between the rows of y stays as it is
        let mut y = vec![0_u8; count * if wide { 4 } else { 2 }];
        machine.download(self.y.address, &mut y)?;
        for (row, x) in x.chunks(self.x.stride).enumerate() {
            for (output, w) in weight.chunks_exact(inputs).enumerate() {
                let sum: f32 = w.iter().zip(x).map(|(w, x)| w * x).sum();
                let at = row * self.y.stride + output;
                if wide {
                    let value = &mut bytemuck::cast_slice_mut::<u8, [u8; 4]>(&mut y)[at];
                    let before = if adds { f32::from_ne_bytes(*value) } else { 0.0 };
                    *value = (before + sum).to_ne_bytes();
                } else {
                    let value = &mut bytemuck::cast_slice_mut::<u8, [u8; 2]>(&mut y)[at];
                    let before = if adds { bf16_value(u16::from_ne_bytes(*value)) } else { 0.0 };
                    *value = bf16_bits(before + sum).to_ne_bytes();
                }
            }
        }
        machine.upload(self.y.address, &y)
    }
}

/// Whether cuBLASLt is here; if not, why, and what to do.
///
/// # Errors
/// When there is none.
pub fn available() -> Result<(), Error> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let missing = FOUND.get_or_init(|| {
        // SAFETY: it opens a library of that name, which asks nothing of its caller.
        load_libraries(&["libcublasLt.so.13"]).err().filter(|_| !unsafe { sys::is_culib_present() })
    });
    match missing {
        None => Ok(()),
        Some(searched) => Err(Error::Missing {
            library: "libcublasLt.so.13",
            searched: searched.clone(),
            remedy: "`pip install nvidia-cublas==13.*` where python3 finds it (PyTorch for CUDA 13 brings it), or point DELTAFRONT_NVRTC to the folder that holds CUDA's libraries",
        }),
    }
}

/// cuBLASLt's version, as 130001 for 13.0.1.
///
/// # Errors
/// When there is none.
pub fn version() -> Result<usize, Error> {
    available()?;
    // SAFETY: asks nothing of its caller.
    Ok(unsafe { sys::cublasLtGetVersion() })
}

fn refused(operation: &str) -> impl Fn(result::CublasError) -> Error + '_ {
    move |error| Error::Refused {
        operation: format!("cuBLASLt's {operation}"),
        reason: error.to_string(),
    }
}

/// How one shape is computed.
#[derive(Debug)]
struct Plan {
    operation: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    y: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// cuBLASLt on one GPU, whose context is current.
#[derive(Debug)]
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    plans: HashMap<(Shape, usize, usize), Plan>,
}

impl Products {
    /// With a workspace of [`Self::WORKSPACE_BYTES`] on the device.
    pub(super) fn new(workspace: u64) -> Result<Self, Error> {
        let handle = result::create_handle().map_err(refused("start"))?;
        Ok(Self { handle, workspace, plans: HashMap::new() })
    }

    pub(super) const WORKSPACE_BYTES: usize = WORKSPACE_BYTES;

    /// Starts `product` on `stream`.
    pub(super) fn start(&mut self, product: &Product, stream: *mut c_void) -> Result<(), Error> {
        product.check()?;
        let key = (product.shape, product.x.stride, product.y.stride);
        let plan = match self.plans.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(plan(self.handle, product)?)
            }
        };
        let (alpha, beta) = (1.0_f32, if product.shape.adds { 1.0_f32 } else { 0.0 });
        // SAFETY: handle and plan were made for each other and are never destroyed; the factors are read during the call;
        // the addresses come from `allocate`, and `check` holds their strides against the layouts.
        unsafe {
            result::matmul(
                self.handle,
                plan.operation,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                product.weight as *const c_void,
                plan.weight,
                product.x.address as *const c_void,
                plan.x,
                product.y.address as *const c_void,
                plan.y,
                product.y.address as *mut c_void,
                plan.y,
                &raw const plan.algorithm,
                self.workspace as *mut c_void,
                WORKSPACE_BYTES,
                stream.cast(),
            )
        }
        .map_err(refused("product"))
    }
}

/// In cuBLASLt's order, by columns, y is `[outputs, rows]`: W transposed times x.
fn plan(handle: sys::cublasLtHandle_t, product: &Product) -> Result<Plan, Error> {
    let Shape { rows, outputs, inputs, wide, .. } = product.shape;
    let (half, single) = (sys::cudaDataType::CUDA_R_16BF, sys::cudaDataType::CUDA_R_32F);
    let operation =
        result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, single)
            .map_err(refused("description"))?;
    let transposed = 1_i32; // CUBLAS_OP_T
    // SAFETY: the attribute is read during the call.
    unsafe {
        result::set_matmul_desc_attribute(
            operation,
            sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
            (&raw const transposed).cast(),
            size_of_val(&transposed),
        )
    }
    .map_err(refused("description"))?;
    let layout = |of, rows: usize, columns: usize, apart: usize| {
        result::create_matrix_layout(of, rows as u64, columns as u64, apart as i64)
            .map_err(refused("layout"))
    };
    let weight = layout(half, inputs, outputs, inputs)?;
    let x = layout(half, inputs, rows, product.x.stride)?;
    let y = layout(if wide { single } else { half }, outputs, rows, product.y.stride)?;
    let workspace = WORKSPACE_BYTES;
    let preference = result::create_matmul_pref().map_err(refused("preference"))?;
    // SAFETY: the attribute is read during the call; the preference is destroyed once, after its last use.
    let found = unsafe {
        result::set_matmul_pref_attribute(
            preference,
            sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            (&raw const workspace).cast(),
            size_of_val(&workspace),
        )
        .and_then(|()| {
            result::get_matmul_algo_heuristic(handle, operation, weight, x, y, y, preference)
        })
        .and_then(|found| result::destroy_matmul_pref(preference).map(|()| found))
    }
    .map_err(refused(&format!("choice for {rows}×{inputs} by {inputs}×{outputs}")))?;
    Ok(Plan { operation, weight, x, y, algorithm: found.algo })
}
