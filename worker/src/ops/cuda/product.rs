//! Matrix products by cuBLASLt: f32 sums, operands and results of any type that models compute in.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::from_ref;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtEpilogue_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulAlgoCheck,
    cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t as Described,
    cublasLtMatmulPreferenceAttributes_t as Preferred, cublasLtMatrixLayout_t,
    cublasLtMatrixLayoutAttribute_t as Laid, cudaDataType,
};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use qlaunch_shared::{Error, Result};

use super::errors;
use crate::tensor::DType;

/// Memory that an algorithm may use besides operands and result.
const WORKSPACE: usize = 32 << 20;
/// Rows that algorithms are chosen for, whatever the rows of a product are.
const ROWS: usize = 4096;
/// `CUBLASLT_REDUCTION_SCHEME_NONE`.
const NO_REDUCTION: u32 = 0;

/// A matrix, or several at equal distances, stored row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Matrix {
    pub(super) dtype: DType,
    /// Elements from one row to the next.
    pub(super) stride: usize,
    /// Elements from one matrix to the next.
    pub(super) distance: usize,
}

/// `out = x · w` or `x · wᵀ`, rounded to the type of `out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Product {
    /// Rows of `x` and `out`.
    pub(super) rows: usize,
    /// Columns of `out`.
    pub(super) columns: usize,
    /// Columns of `x`.
    pub(super) depth: usize,
    pub(super) x: Matrix,
    /// Whether `x` is stored with its sides exchanged: `[depth, rows]`.
    pub(super) x_exchanged: bool,
    pub(super) w: Matrix,
    /// Whether `w` is stored as `[columns, depth]`, as weights are; otherwise `[depth, columns]`.
    pub(super) w_exchanged: bool,
    pub(super) out: Matrix,
    /// How many products there are.
    pub(super) batch: usize,
    /// Whether a bias of `[columns]` is added before rounding.
    pub(super) biased: bool,
}

/// Where the operands of a product are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub(super) x: u64,
    pub(super) w: u64,
    pub(super) bias: Option<u64>,
    pub(super) out: u64,
}

/// What divides the addresses of a product's operands: 256, which is memory's own, or less within a tensor. Algorithms ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Alignment {
    w: u32,
    x: u32,
    out: u32,
}

fn alignment(places: Places) -> Alignment {
    let of = |address: u64| 1 << address.trailing_zeros().min(8);
    Alignment { w: of(places.w), x: of(places.x), out: of(places.out) }
}

/// cuBLASLt on one stream.
pub(super) struct Blas {
    handle: cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    stream: Arc<CudaStream>,
    /// The algorithm of each product that was asked for; the same one every time, so that bits repeat.
    chosen: Mutex<HashMap<(Product, Alignment), cublasLtMatmulAlgo_t>>,
}

// SAFETY: cuBLASLt's handles may be used by several threads at once (its documentation, "Thread Safety").
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: the handle was made by `create_handle` and is destroyed once. A failure at the end harms nobody.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl Blas {
    pub(super) fn new(stream: &Arc<CudaStream>) -> Result<Self> {
        // SAFETY: nothing reads it before cuBLASLt writes it.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE) };
        let workspace = workspace.map_err(|error| errors::driver("find memory", error))?;
        let handle = result::create_handle().map_err(|error| errors::blas("be started", error))?;
        Ok(Self { handle, workspace, stream: Arc::clone(stream), chosen: Mutex::default() })
    }

    /// Queues a product. The context must be bound to this thread.
    ///
    /// # Safety
    /// The places hold, or have room for, matrices as the product describes them.
    pub(super) unsafe fn multiply(&self, product: Product, places: Places) -> Result<()> {
        if product.rows == 0 || product.columns == 0 || product.batch == 0 {
            return Ok(());
        }
        if product.depth == 0 {
            return Err(Error::bug("a product over nothing"));
        }
        // SAFETY: the caller's promise.
        unsafe { self.queue(product, places) }.map_err(|error| errors::blas("multiply", error))
    }

    /// cuBLASLt stores column by column, where our rows are its columns: outᵀ = op(w)ᵀ · op(x)ᵀ.
    unsafe fn queue(&self, product: Product, places: Places) -> std::result::Result<(), CublasError> {
        let call = Call::new(product.biased.then_some(places.bias).flatten(), product)?;
        let Layouts { a, b, d } = Layouts::of(product)?;
        let algorithm = self.algorithm((product, alignment(places)), &call, [&a, &b, &d])?;
        let (one, zero) = (1.0f32, 0.0f32);
        // SAFETY: descriptions and layouts live until the call returns, and the caller promises the operands.
        unsafe {
            result::matmul(
                self.handle,
                call.0,
                from_ref(&one).cast(),
                from_ref(&zero).cast(),
                places.w as *const c_void,
                a.0,
                places.x as *const c_void,
                b.0,
                places.out as *const c_void,
                d.0,
                places.out as *mut c_void,
                d.0,
                &algorithm,
                self.workspace.device_ptr(&self.stream).0 as *mut c_void,
                WORKSPACE,
                self.stream.cu_stream().cast(),
            )
        }
    }

    fn algorithm(
        &self,
        (product, alignment): (Product, Alignment),
        call: &Call,
        [a, b, d]: [&Layout; 3],
    ) -> std::result::Result<cublasLtMatmulAlgo_t, CublasError> {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(algorithm) = chosen.get(&(product, alignment)) {
            return Ok(*algorithm);
        }
        // The number of rows is that of a batch, which must not decide about bits.
        let asked = Product { rows: if product.batch == 1 { ROWS } else { product.rows }, ..product };
        let own = self.proposed(call, &Layouts::of(asked)?, alignment)?;
        // SAFETY: everything that is passed was made by this library, and lives.
        let fits = unsafe {
            let mut told = std::mem::zeroed();
            cublasLtMatmulAlgoCheck(self.handle, call.0, a.0, b.0, d.0, d.0, &raw const own, &raw mut told)
                .result()
        };
        let algorithm = match fits {
            Ok(()) => own,
            Err(error) => {
                tracing::warn!("a product of {} rows takes an algorithm of its own: {error}", product.rows);
                self.proposed(call, &Layouts::of(product)?, alignment)?
            }
        };
        chosen.insert((product, alignment), algorithm);
        Ok(algorithm)
    }

    /// The algorithm that cuBLASLt thinks best for these sizes.
    fn proposed(
        &self,
        call: &Call,
        Layouts { a, b, d }: &Layouts,
        alignment: Alignment,
    ) -> std::result::Result<cublasLtMatmulAlgo_t, CublasError> {
        let preference = Preference::new(alignment)?;
        // SAFETY: everything that is passed was made by this library, and lives.
        let found = unsafe {
            result::get_matmul_algo_heuristic(self.handle, call.0, a.0, b.0, d.0, d.0, preference.0)
        }?;
        Ok(found.algo)
    }
}

/// The matrices of a product as cuBLASLt sees them.
struct Layouts {
    a: Layout,
    b: Layout,
    d: Layout,
}

impl Layouts {
    fn of(product: Product) -> std::result::Result<Self, CublasError> {
        let Product { rows, columns, depth, .. } = product;
        let side = |exchanged: bool, rows: usize, columns: usize| {
            if exchanged { (columns, rows) } else { (rows, columns) }
        };
        // Sides as they are stored: rows of ours are columns of theirs.
        let (w_rows, w_columns) = side(product.w_exchanged, depth, columns);
        let (x_rows, x_columns) = side(product.x_exchanged, rows, depth);
        Ok(Self {
            a: Layout::new(product.w, w_columns, w_rows, product.batch)?,
            b: Layout::new(product.x, x_columns, x_rows, product.batch)?,
            d: Layout::new(product.out, columns, rows, product.batch)?,
        })
    }
}

/// A product's description.
struct Call(cublasLtMatmulDesc_t);

impl Call {
    fn new(bias: Option<u64>, product: Product) -> std::result::Result<Self, CublasError> {
        let own = Self(result::create_matmul_desc(
            cublasComputeType_t::CUBLAS_COMPUTE_32F,
            cudaDataType::CUDA_R_32F,
        )?);
        // Stored by columns, `[columns, depth]` by rows is `depth × columns`: it is the exchanged one that is transposed.
        own.set(Described::CUBLASLT_MATMUL_DESC_TRANSA, &i32::from(product.w_exchanged))?;
        own.set(Described::CUBLASLT_MATMUL_DESC_TRANSB, &i32::from(product.x_exchanged))?;
        if let Some(bias) = bias {
            own.set(Described::CUBLASLT_MATMUL_DESC_EPILOGUE, &cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS)?;
            own.set(Described::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        Ok(own)
    }

    fn set<T>(&self, attribute: Described, value: &T) -> std::result::Result<(), CublasError> {
        // SAFETY: the description lives, and the value has the attribute's type.
        unsafe {
            result::set_matmul_desc_attribute(self.0, attribute, from_ref(value).cast(), size_of::<T>())
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // SAFETY: made by `create_matmul_desc`, destroyed once.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// A matrix's layout by columns.
struct Layout(cublasLtMatrixLayout_t);

impl Layout {
    fn new(
        matrix: Matrix,
        rows: usize,
        columns: usize,
        batch: usize,
    ) -> std::result::Result<Self, CublasError> {
        let kind = match matrix.dtype {
            DType::F32 => cudaDataType::CUDA_R_32F,
            DType::BF16 => cudaDataType::CUDA_R_16BF,
            _ => cudaDataType::CUDA_R_16F,
        };
        let own =
            Self(result::create_matrix_layout(kind, rows as u64, columns as u64, matrix.stride as i64)?);
        if batch > 1 {
            own.set(Laid::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &(batch as i32))?;
            own.set(Laid::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &(matrix.distance as i64))?;
        }
        Ok(own)
    }

    fn set<T>(&self, attribute: Laid, value: &T) -> std::result::Result<(), CublasError> {
        // SAFETY: the layout lives, and the value has the attribute's type.
        unsafe {
            result::set_matrix_layout_attribute(self.0, attribute, from_ref(value).cast(), size_of::<T>())
        }
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made by `create_matrix_layout`, destroyed once.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What an algorithm may use.
struct Preference(cudarc::cublaslt::sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new(alignment: Alignment) -> std::result::Result<Self, CublasError> {
        let own = Self(result::create_matmul_pref()?);
        own.set(Preferred::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE)?;
        // A sum that is cut into parts is cut elsewhere for another number of rows.
        own.set(Preferred::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &NO_REDUCTION)?;
        let Alignment { w, x, out } = alignment;
        own.set(Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &w)?;
        own.set(Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &x)?;
        own.set(Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &out)?;
        own.set(Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &out)?;
        Ok(own)
    }

    fn set<T>(&self, attribute: Preferred, value: &T) -> std::result::Result<(), CublasError> {
        // SAFETY: the preference lives, and the value has the attribute's type.
        unsafe {
            result::set_matmul_pref_attribute(self.0, attribute, from_ref(value).cast(), size_of::<T>())
        }
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by `create_matmul_pref`, destroyed once.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}
