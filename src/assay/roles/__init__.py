"""The roles of a cell, each in a process of its own: builder, runner, preprocessor, judge."""
