"""The pipeline's steps as functions of files, and runs, schedules and servers of KFP."""
