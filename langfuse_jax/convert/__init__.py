"""Weights of other projects to this project's parameter trees and back: one table per model, one reader of files."""
