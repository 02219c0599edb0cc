package registry

import (
	"context"
	"net"
	"time"
)

// longestSilence is how long a registry may be silent while we wait for it: long
// enough for it to move a big blob to where it keeps it, before it answers.
const longestSilence = 3 * time.Minute

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// patient limits the silence on connections: reading from one fails when nothing
// was received or could be sent for that long. Without that, a server that hangs
// would have us hang too.
func patient(dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return patientConn{conn}, nil
	}
}

type patientConn struct{ net.Conn }

func (c patientConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(longestSilence)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c patientConn) Write(p []byte) (int, error) {
	// What is received comes after what is sent: a reader waits for that, too.
	if err := c.SetDeadline(time.Now().Add(longestSilence)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
