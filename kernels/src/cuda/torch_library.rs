//! CUDA for a program that is linked against libtorch for CPUs: libtorch's own CUDA library, loaded at run time.
//!
//! It must be loaded before libtorch is first asked about CUDA: asked once before, libtorch remembers the answer no.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::Error;

/// The version that programs here are linked against; another one's libraries do not fit.
pub const VERSION: &str = "2.11.0";

const LIBRARY: &str = "libtorch_cuda.so";

/// Folders that may hold it: `DELTAFRONT_TORCH_CUDA`, then that of Python's PyTorch.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::var_os("DELTAFRONT_TORCH_CUDA").map(PathBuf::from).into_iter().collect();
    let ask = "import importlib.util as u,os;print(os.path.join(list(u.find_spec('torch').submodule_search_locations)[0],'lib'))";
    let output = std::process::Command::new("python3").args(["-c", ask]).output();
    if let Ok(output) = output
        && output.status.success()
    {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    folders
}

/// The version that stands beside the libraries, `2.11.0+cu130`.
fn version_of(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.parent()?.join("version.py")).ok()?;
    let line = text.lines().find(|line| line.starts_with("__version__"))?;
    Some(line.split(['\'', '"']).nth(1)?.to_owned())
}

fn load_from(folder: &Path) -> Result<(), Error> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    let refused = |reason: String| Error::Refused {
        operation: format!("loading {}", folder.join(LIBRARY).display()),
        reason,
    };
    if let Some(version) = version_of(folder)
        && version.split('+').next() != Some(VERSION)
    {
        return Err(refused(format!(
            "it is of PyTorch {version}, and this program needs {VERSION}: install torch=={VERSION}"
        )));
    }
    // SAFETY: PyTorch's library registers itself with the libtorch that runs here, of the same version as just checked;
    // it stays loaded for as long as the program runs.
    let library = unsafe { Library::open(Some(folder.join(LIBRARY)), RTLD_NOW | RTLD_GLOBAL) }
        .map_err(|error| refused(error.to_string()))?;
    std::mem::forget(library);
    Ok(())
}

/// Loads it, once; why it cannot be had, and what to do, if not.
///
/// # Errors
/// When there is none, or one of another version.
pub fn load() -> Result<(), Error> {
    static LOADED: OnceLock<Result<(), (String, bool)>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let folders = folders();
        if let Some(folder) = folders.iter().find(|folder| folder.join(LIBRARY).exists()) {
            load_from(folder).map_err(|error| (error.to_string(), true))
        } else {
            let list: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
            Err((list.join(", "), false))
        }
    });
    match loaded {
        Ok(()) => Ok(()),
        Err((reason, true)) => Err(Error::Refused {
            operation: "training on the GPU".to_owned(),
            reason: reason.clone(),
        }),
        Err((searched, false)) => Err(Error::Missing {
            library: LIBRARY,
            searched: if searched.is_empty() {
                "python3 has no torch".to_owned()
            } else {
                searched.clone()
            },
            remedy: "install torch==2.11.0 with CUDA for python3, or point DELTAFRONT_TORCH_CUDA to the folder that holds it",
        }),
    }
}
