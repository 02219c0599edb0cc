package frontend

import (
	"context"
	"io/fs"
	"path"
	"time"

	"github.com/moby/buildkit/frontend/gateway/client"

	"github.com/imgwrap/imgwrap/image/scan"
)

// walkJobs is how many questions about an image the builder is asked at a time.
// Builders that cannot merge may be of an age when several at once made them give
// up ("flightcontrol: exceeded retry timeout").
func (b *build) walkJobs() int {
	if !b.merges() {
		return 1
	}
	return 16
}

// tree shows what was built as the gateway shows it.
type tree struct{ ref client.Reference }

func (t tree) ReadDir(ctx context.Context, name string) ([]scan.TreeEntry, error) {
	stats, err := t.ref.ReadDir(ctx, client.ReadDirRequest{Path: path.Join("/", name)})
	if err != nil {
		return nil, err
	}
	entries := make([]scan.TreeEntry, len(stats))
	for i, s := range stats {
		entries[i] = scan.TreeEntry{
			Name:     path.Base(s.Path),
			Mode:     fs.FileMode(s.Mode),
			UID:      int(s.Uid),
			GID:      int(s.Gid),
			Size:     s.Size,
			ModTime:  time.Unix(0, s.ModTime),
			Linkname: s.Linkname,
		}
	}
	return entries, nil
}

func (t tree) ReadAt(ctx context.Context, name string, offset int64, length int) ([]byte, error) {
	return t.ref.ReadFile(ctx, client.ReadRequest{
		Filename: path.Join("/", name),
		Range:    &client.FileRange{Offset: int(offset), Length: length},
	})
}
