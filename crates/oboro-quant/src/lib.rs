//! oboro-quant
