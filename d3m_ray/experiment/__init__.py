"""THE STORY of an experiment, and the stages that it goes through."""
