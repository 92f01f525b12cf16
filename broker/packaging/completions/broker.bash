# The program completes itself, with the names of queues, exchanges and vhosts of the broker in use.
source <(COMPLETE=bash broker)
