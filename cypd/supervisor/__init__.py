"""The process that starts the workers, keeps them, and replaces them.

It holds the listening sockets, so that nobody is refused while workers come and go, and it opens
neither metadata nor blobs: there is little in it that could break.
"""

from cypd.supervisor.supervisor import Supervisor as Supervisor
