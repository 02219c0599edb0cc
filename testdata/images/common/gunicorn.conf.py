# The application asks itself while it answers.
threads = 4
