//! CUDA C++ to machine code at run time, by NVRTC, without a GPU if need be.
//!
//! Results are cached in the user's cache directory under a hash of everything they depend on: source, constants,
//! architecture, options and NVRTC's version.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::nvrtc::{result, sys};

use super::{COMMON, Error, Source};

const VOCABULARY: &str = include_str!("vocabulary.cuh");
const HOPPER: &str = include_str!("hopper.cuh");
const PAIRS: &str = include_str!("pairs.cuh");

/// Machine code and what the assembler said of it.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// A cubin for `sm_…`, PTX text for `compute_…`.
    pub image: Vec<u8>,
    /// One entry per kernel.
    pub resources: Vec<Resources>,
}

/// What one kernel takes of a multiprocessor, as the assembler reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// The kernel.
    pub kernel: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes written to local memory for want of registers.
    pub spill_store_bytes: u32,
    /// Bytes read back.
    pub spill_load_bytes: u32,
    /// Statically declared shared memory.
    pub static_shared_bytes: u32,
}

/// Where NVRTC may lie: `DELTAFRONT_NVRTC` (a folder), the folder that `tools/setup.py nvrtc` fills, the CUDA
/// toolkit, and PyTorch's packages.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    folders.extend(std::env::var_os("DELTAFRONT_NVRTC").map(PathBuf::from));
    folders.push(cache_folder().join("nvrtc-13.0.88/nvidia/cu13/lib"));
    for name in ["CUDA_HOME", "CUDA_PATH"] {
        folders.extend(std::env::var_os(name).map(|root| PathBuf::from(root).join("lib64")));
    }
    folders.extend(["/usr/local/cuda/lib64", "/usr/local/cuda-13.0/lib64"].map(PathBuf::from));
    folders
}

/// The folder of PyTorch's own NVRTC, asked of its Python.
fn python_folder() -> Option<PathBuf> {
    let ask = "import importlib.util as u,os;s=u.find_spec('nvidia');print(os.path.join(list(s.submodule_search_locations)[0],'cu13','lib'))";
    let output = std::process::Command::new("python3").args(["-c", ask]).output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// `$XDG_CACHE_HOME/deltafront` or `~/.cache/deltafront`.
pub fn cache_folder() -> PathBuf {
    let root = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache"));
    root.or_else(home).unwrap_or_else(std::env::temp_dir).join("deltafront")
}

/// Loads the libraries called `names`, all from one folder, for as long as the program runs: whoever asks for them by
/// these names later is answered with them.
fn load_from(folder: &Path, names: &[&str]) -> bool {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    names.iter().all(|name| {
        let path = folder.join(name);
        if !path.exists() {
            return false;
        }
        // SAFETY: NVIDIA's libraries have no initialisers that ask anything of their caller.
        match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
            Ok(library) => std::mem::forget(library), // for as long as the program runs
            Err(_) => return false,
        }
        true
    })
}

/// Loads libraries of CUDA, or says where they were looked for.
pub(super) fn load_libraries(names: &[&str]) -> Result<(), String> {
    if folders().iter().any(|f| load_from(f, names))
        || python_folder().is_some_and(|f| load_from(&f, names))
    {
        return Ok(());
    }
    let searched = folders().iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(format!("{searched}, PyTorch's packages, the system's libraries"))
}

/// Whether NVRTC is here; if not, why, and what to do.
pub fn available() -> Result<(), Error> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let missing = FOUND.get_or_init(|| {
        // NVRTC opens its builtins by bare name; loaded before, the dynamic linker answers with them.
        let loaded = load_libraries(&["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"]);
        // SAFETY: it opens a library of that name, as above.
        loaded.err().filter(|_| !unsafe { sys::is_culib_present() })
    });
    let Some(searched) = missing else { return Ok(()) };
    Err(Error::Missing {
        library: "libnvrtc.so.13",
        searched: searched.clone(),
        remedy: "run `python3 tools/setup.py nvrtc`, or point DELTAFRONT_NVRTC to the folder that holds it",
    })
}

/// NVRTC's version.
pub fn version() -> Result<(i32, i32), Error> {
    available()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both point to integers that live through the call.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }
        .result()
        .map_err(|e| refused("version", &e))?;
    Ok((major, minor))
}

fn refused(operation: &str, error: &dyn std::fmt::Debug) -> Error {
    Error::Refused { operation: format!("NVRTC's {operation}"), reason: format!("{error:?}") }
}

/// What is compiled: the vocabulary, the common functions, the source, each under its own name in messages.
fn full_text(source: Source) -> String {
    let part = |name: &str, text: &str| {
        format!("#line 1 \"{name}\"\n{}\n", text.replace("#pragma once", ""))
    };
    let hopper = if source.for_hopper() { part("hopper.cuh", HOPPER) } else { String::new() };
    let pairs = if source.has_pairs() { part("pairs.cuh", PAIRS) } else { String::new() };
    part("vocabulary.cuh", VOCABULARY)
        + &hopper
        + &pairs
        + &part("common.cuh", COMMON)
        + &part(source.name(), source.text())
}

/// Compiles `source` with `defines` for `architecture` (`sm_90` gives a cubin, `compute_100` PTX), or takes it from the
/// cache.
pub fn compile(
    source: Source,
    defines: &[(&'static str, u32)],
    architecture: &str,
) -> Result<Compiled, Error> {
    let (major, minor) = version()?;
    let text = full_text(source);
    let mut options = vec![
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".to_owned(),
        "--ptxas-options=-v".to_owned(),
    ];
    options.extend(defines.iter().map(|(name, value)| format!("-D{name}={value}")));
    let key = blake3::hash(format!("{major}.{minor}\n{}\n{text}", options.join(" ")).as_bytes());
    let folder = cache_folder().join("cuda");
    let (image_path, log_path) = (
        folder.join(format!("{}.image", key.to_hex())),
        folder.join(format!("{}.log", key.to_hex())),
    );
    if let (Ok(image), Ok(log)) = (std::fs::read(&image_path), std::fs::read_to_string(&log_path)) {
        return Ok(Compiled { image, resources: resources(&log) });
    }
    let (image, log) = compile_now(source, &text, &options, architecture)?;
    // A cache that cannot be written costs time only; a half-written file must not be found.
    let keep = |path: &Path, bytes: &[u8]| -> std::io::Result<()> {
        let partial = path.with_extension(format!("{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(&partial, bytes)?;
        std::fs::rename(&partial, path)
    };
    let _ = keep(&image_path, &image).and_then(|()| keep(&log_path, log.as_bytes()));
    Ok(Compiled { image, resources: resources(&log) })
}

fn compile_now(
    source: Source,
    text: &str,
    options: &[String],
    architecture: &str,
) -> Result<(Vec<u8>, String), Error> {
    let text = CString::new(text).expect("sources hold no NUL");
    let name = CString::new(source.name()).expect("names hold no NUL");
    let program =
        result::create_program(&text, Some(&name)).map_err(|e| refused("create_program", &e))?;
    // SAFETY: the program was created above and is destroyed below, after the last use.
    let compiled = unsafe { result::compile_program(program, options) };
    // SAFETY: as above; the log is a C string.
    let log = unsafe { result::get_program_log(program) }
        .map(|log| log.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect::<Vec<u8>>())
        .map(|log| String::from_utf8_lossy(&log).into_owned())
        .unwrap_or_default();
    let image = match compiled {
        Err(_) => Err(Error::Compile {
            source_name: source.name(),
            architecture: architecture.to_owned(),
            log: log.clone(),
        }),
        Ok(()) if architecture.starts_with("sm_") => cubin(program),
        // SAFETY: as above.
        Ok(()) => unsafe { result::get_ptx(program) }
            .map(|ptx| ptx.iter().map(|c| *c as u8).collect())
            .map_err(|e| refused("get_ptx", &e)),
    };
    // SAFETY: the program exists and is not used again.
    unsafe { result::destroy_program(program) }.map_err(|e| refused("destroy_program", &e))?;
    Ok((image?, log))
}

fn cubin(program: sys::nvrtcProgram) -> Result<Vec<u8>, Error> {
    let mut bytes = 0;
    // SAFETY: the program is compiled; `bytes` lives through the call.
    unsafe { sys::nvrtcGetCUBINSize(program, &raw mut bytes) }
        .result()
        .map_err(|e| refused("cubin size", &e))?;
    let mut image = vec![0_u8; bytes];
    // SAFETY: the image has the size that NVRTC asked for.
    unsafe { sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast()) }
        .result()
        .map_err(|e| refused("cubin", &e))?;
    Ok(image)
}

/// Reads the assembler's report.
fn resources(log: &str) -> Vec<Resources> {
    let number_before = |line: &str, words: &str| {
        let end = line.find(words)?;
        line[..end].trim_end().rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let mut all: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some(at) = line.find("Compiling entry function '") {
            let kernel = line[at + 26..].split('\'').next().unwrap_or_default().to_owned();
            all.push(Resources {
                kernel,
                registers: 0,
                spill_store_bytes: 0,
                spill_load_bytes: 0,
                static_shared_bytes: 0,
            });
        }
        let Some(last) = all.last_mut() else { continue };
        if let Some(bytes) = number_before(line, " bytes spill stores") {
            last.spill_store_bytes = bytes;
            last.spill_load_bytes = number_before(line, " bytes spill loads").unwrap_or(0);
        }
        if let Some(registers) = number_before(line, " registers") {
            last.registers = registers;
            last.static_shared_bytes = number_before(line, " bytes smem").unwrap_or(0);
        }
    }
    all
}

/// NVRTC's last words on a failed call.
pub fn error_text(code: sys::nvrtcResult) -> String {
    // SAFETY: NVRTC returns a string that lives for ever.
    unsafe { CStr::from_ptr(sys::nvrtcGetErrorString(code)) }.to_string_lossy().into_owned()
}
