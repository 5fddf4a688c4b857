//! The Pareto front as a scatter plot.
