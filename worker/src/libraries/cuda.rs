//! What the driver of NVIDIA's GPUs says of them: enough to choose a device, and to say why none can be chosen.

use std::ffi::{c_char, c_int, c_uint, c_void};

use qlaunch_shared::digest::hex;
use qlaunch_shared::{Error, Result};
use serde::Serialize;

use super::load::Loaded;

type Status = c_int;

/// The driver, ready to be asked.
#[derive(Debug)]
pub struct Driver {
    library: Loaded,
    /// Version of CUDA that it serves at most: 12080 is 12.8.
    pub version: i32,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Which, from 0, of those that this process sees.
    pub index: i32,
    /// Its name.
    pub name: String,
    /// What tells it from all others, in hexadecimal digits; absent where the driver does not say.
    pub uuid: Option<String>,
    /// Compute capability: 90 is 9.0.
    pub capability: i32,
    /// Memory in bytes.
    pub memory: u64,
    /// Free memory in bytes; absent where it was not asked for, or the GPU takes no further process.
    pub free: Option<u64>,
}

/// What the driver's commonest refusals mean, and what to do.
const REFUSALS: [(Status, &str, &str); 6] = [
    (
        35,
        "the driver is older than its library",
        "update NVIDIA's driver, or restart the host after an update",
    ),
    (46, "the GPUs are in use by others alone", "wait, or ask for a GPU of your own"),
    (
        100,
        "the driver sees no GPU",
        "ask the scheduler for one, or look at `CUDA_VISIBLE_DEVICES` and `nvidia-smi`",
    ),
    (
        803,
        "driver and library are of different versions",
        "restart the host, or load the library of its driver",
    ),
    (
        804,
        "this GPU does not serve a library that is newer than its driver",
        "remove CUDA's `compat` folder from `LD_LIBRARY_PATH`",
    ),
    (999, "the driver does not say why", "look at `nvidia-smi` and `dmesg`; a restart often helps"),
];

fn check(action: &str, status: Status) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    let known = REFUSALS.iter().find(|(code, ..)| *code == status);
    let (what, remedy) =
        known.map_or(("an unknown refusal", "look at `nvidia-smi`"), |(_, what, remedy)| (*what, *remedy));
    Err(Error::input(format!("{action} failed: {what} (CUDA error {status})")).hint(remedy))
}

impl Driver {
    /// Wakes the driver.
    ///
    /// # Errors
    /// It refuses, and the error says why where that is known.
    pub fn init(library: Loaded) -> Result<Self> {
        // SAFETY: types are those of `cuda.h`; the library lives as long as this value.
        let (init, get_version) = unsafe {
            (
                library.function::<extern "C" fn(c_uint) -> Status>("cuInit")?,
                library.function::<extern "C" fn(*mut c_int) -> Status>("cuDriverGetVersion")?,
            )
        };
        check("starting CUDA", init(0))?;
        let mut version = 0;
        check("asking for CUDA's version", get_version(&raw mut version))?;
        Ok(Self { library, version })
    }

    /// Its GPUs. None is used for it, so that nobody who has one for himself is disturbed.
    ///
    /// # Errors
    /// The driver does not answer.
    pub fn devices(&self) -> Result<Vec<Device>> {
        // SAFETY: the type is that of `cuda.h`.
        let count =
            unsafe { self.library.function::<extern "C" fn(*mut c_int) -> Status>("cuDeviceGetCount")? };
        let mut devices = 0;
        check("counting GPUs", count(&raw mut devices))?;
        (0..devices).map(|index| self.device(index)).collect()
    }

    fn device(&self, index: c_int) -> Result<Device> {
        // SAFETY: types are those of `cuda.h`.
        let (get, get_name, attribute, total) = unsafe {
            (
                self.library.function::<extern "C" fn(*mut c_int, c_int) -> Status>("cuDeviceGet")?,
                self.library
                    .function::<extern "C" fn(*mut c_char, c_int, c_int) -> Status>("cuDeviceGetName")?,
                self.library
                    .function::<extern "C" fn(*mut c_int, c_int, c_int) -> Status>("cuDeviceGetAttribute")?,
                self.library.function::<extern "C" fn(*mut usize, c_int) -> Status>("cuDeviceTotalMem_v2")?,
            )
        };
        let (mut device, mut memory, mut name) = (0, 0usize, [0u8; 128]);
        check("opening a GPU", get(&raw mut device, index))?;
        let length = name.len() as c_int - 1;
        check("asking a GPU for its name", get_name(name.as_mut_ptr().cast(), length, device))?;
        check("asking a GPU for its memory", total(&raw mut memory, device))?;
        // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
        let mut capability = 0;
        for (number, factor) in [(75, 10), (76, 1)] {
            let mut value = 0;
            check("asking a GPU for its kind", attribute(&raw mut value, number, device))?;
            capability += value * factor;
        }
        let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
        let uuid = self.uuid(device);
        Ok(Device { index, name, uuid, capability, memory: memory as u64, free: None })
    }

    fn uuid(&self, device: c_int) -> Option<String> {
        type Ask = extern "C" fn(*mut [u8; 16], c_int) -> Status;
        // SAFETY: the types of both are those of `cuda.h`.
        let ask = unsafe {
            // The newer one tells parts of a shared GPU apart.
            self.library
                .function::<Ask>("cuDeviceGetUuid_v2")
                .or_else(|_| self.library.function("cuDeviceGetUuid"))
        };
        let mut uuid = [0; 16];
        (ask.ok()?(&raw mut uuid, device) == 0).then(|| hex(uuid))
    }

    /// The same GPU with its free memory, which only a process that uses it for a moment knows.
    pub fn look(&self, device: Device) -> Device {
        Device { free: self.free(device.index), ..device }
    }

    fn free(&self, index: c_int) -> Option<u64> {
        // SAFETY: types are those of `cuda.h`.
        let (get, retain, release, set, info) = unsafe {
            (
                self.library.function::<extern "C" fn(*mut c_int, c_int) -> Status>("cuDeviceGet").ok()?,
                self.library
                    .function::<extern "C" fn(*mut *mut c_void, c_int) -> Status>("cuDevicePrimaryCtxRetain")
                    .ok()?,
                self.library
                    .function::<extern "C" fn(c_int) -> Status>("cuDevicePrimaryCtxRelease_v2")
                    .ok()?,
                self.library.function::<extern "C" fn(*mut c_void) -> Status>("cuCtxSetCurrent").ok()?,
                self.library
                    .function::<extern "C" fn(*mut usize, *mut usize) -> Status>("cuMemGetInfo_v2")
                    .ok()?,
            )
        };
        let (mut device, mut context) = (0, std::ptr::null_mut());
        if get(&raw mut device, index) != 0 {
            return None;
        }
        if retain(&raw mut context, device) != 0 {
            return None;
        }
        let (mut free, mut total) = (0usize, 0usize);
        let known = set(context) == 0 && info(&raw mut free, &raw mut total) == 0;
        set(std::ptr::null_mut());
        release(device);
        known.then_some(free as u64)
    }
}
