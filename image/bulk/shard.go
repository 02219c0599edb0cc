package bulk

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"io"
	"math/bits"
	"regexp"
	"slices"
	"strconv"
)

// Item is an image that is to be wrapped.
type Item struct {
	Name   string // tells it from the others
	Layers []Layer
}

// perItem is what an image costs beside reading its layers, in bytes that could be
// read meanwhile: requests that wait for each other, documents, its own launch
// layer.
const perItem = 1 << 20

// Shards divides items among n workers: the result has, for each, the indexes of
// its items, ascending. It follows from the items alone, whatever their order: each
// worker finds out by itself which are its own.
//
// Images that share layers meet where they can, as a layer is read once by each
// worker that needs it. What a worker costs is the bytes of its distinct layers, and
// something for each image. It is bounded: by 1.25 times the fair share, or by what
// is possible at all. Items are grouped by the largest layer that they share with
// another one; each group has an order of workers of its own (rendezvous hashing),
// and goes to the first one that has room for it. A group that is too large for that
// fills several, by the next largest shared layers. So the workers of most items
// are the same if some item is added or another is gone.
func Shards(items []Item, n int) [][]int {
	d := newDivision(items, n)
	limit := grid(max(d.fair()/9*10, d.largest))
	for !d.place(limit) {
		limit = grid(limit + 1)
	}
	for _, shard := range d.shards {
		slices.Sort(shard)
	}
	return d.shards
}

// grid rounds up to the next number of 4 bits with zeros behind: limits stay what
// they are if there is an item more, and are at most an eighth too high.
func grid(n int64) int64 {
	shift := max(0, bits.Len64(uint64(n))-4)
	return (n + 1<<shift - 1) >> shift << shift
}

// division is items on their way to workers.
type division struct {
	n       int
	sizes   []int64  // of layers
	groups  []*group // largest first
	largest int64    // cost of an item
	marked  []int    // layers that were seen, by the number of the search
	marks   int

	shards [][]int
	costs  []int64  // of shards
	has    []uint64 // a bit for each layer of each shard
}

// group is items that share a layer.
type group struct {
	key     string
	members []member
	cost    int64
}

type member struct {
	index  int
	layers []int
	shared []string // digests of the layers that other items have too, largest first
	name   string
}

func newDivision(items []Item, n int) *division {
	d := &division{n: n}
	var digests []string
	ids := map[string]int{}
	var users []int // how many items have a layer
	members := make([]member, len(items))
	for i, item := range items {
		m := member{index: i, name: item.Name}
		for _, l := range item.Layers {
			id, ok := ids[l.Digest]
			if !ok {
				id = len(digests)
				ids[l.Digest] = id
				digests, d.sizes, users = append(digests, l.Digest), append(d.sizes, 0), append(users, 0)
			}
			d.sizes[id] = max(d.sizes[id], l.Size)
			if !slices.Contains(m.layers, id) {
				m.layers = append(m.layers, id)
				users[id]++
			}
		}
		members[i] = m
	}
	groups := map[string]*group{}
	for _, m := range members {
		slices.SortFunc(m.layers, func(a, b int) int {
			return cmp.Or(cmp.Compare(d.sizes[b], d.sizes[a]), cmp.Compare(digests[a], digests[b]))
		})
		for _, id := range m.layers {
			if users[id] > 1 {
				m.shared = append(m.shared, digests[id])
			}
		}
		key := m.name
		switch {
		case len(m.shared) > 0:
			key = m.shared[0]
		case len(m.layers) > 0: // to stay where it is if another one comes to share it
			key = digests[m.layers[0]]
		}
		g := groups[key]
		if g == nil {
			g = &group{key: key}
			groups[key] = g
			d.groups = append(d.groups, g)
		}
		g.members = append(g.members, m)
		d.largest = max(d.largest, d.cost(1, m.layers))
	}
	d.marked = make([]int, len(d.sizes))
	for _, g := range d.groups {
		slices.SortFunc(g.members, func(a, b member) int {
			return cmp.Or(slices.Compare(a.shared, b.shared), cmp.Compare(a.name, b.name))
		})
		g.cost = d.cost(len(g.members), d.distinct(g.members))
	}
	// Large ones first: what is small still finds room when they are placed. Sizes
	// that differ little do not count.
	slices.SortFunc(d.groups, func(a, b *group) int {
		return cmp.Or(cmp.Compare(bits.Len64(uint64(b.cost)), bits.Len64(uint64(a.cost))), cmp.Compare(a.key, b.key))
	})
	return d
}

// fair is what each worker would cost if no layer was read twice.
func (d *division) fair() int64 {
	total := int64(0)
	for _, size := range d.sizes {
		total += size
	}
	for _, g := range d.groups {
		total += perItem * int64(len(g.members))
	}
	return total / int64(d.n)
}

// cost is that of so many items with these layers.
func (d *division) cost(items int, layers []int) int64 {
	cost := perItem * int64(items)
	for _, id := range layers {
		cost += d.sizes[id]
	}
	return cost
}

// more is what so many items with these layers cost more on a worker.
func (d *division) more(worker, items int, layers []int) int64 {
	cost := perItem * int64(items)
	for _, id := range layers {
		if i := worker*len(d.sizes) + id; d.has[i/64]>>(i%64)&1 == 0 {
			cost += d.sizes[id]
		}
	}
	return cost
}

// distinct are the layers of members.
func (d *division) distinct(members []member) []int {
	var layers []int
	d.marks++
	for _, m := range members {
		for _, id := range m.layers {
			if d.marked[id] != d.marks {
				d.marked[id] = d.marks
				layers = append(layers, id)
			}
		}
	}
	return layers
}

// place gives all items to workers, none of which may cost more than the limit.
// It says whether that is possible.
func (d *division) place(limit int64) bool {
	d.shards, d.costs, d.has = make([][]int, d.n), make([]int64, d.n), make([]uint64, d.n*len(d.sizes)/64+1)
	for _, g := range d.groups {
		key := hash(g.key)
		rest := g.members
		for len(rest) > 0 {
			w, ok := d.room(key, rest, limit)
			if !ok {
				return false
			}
			for len(rest) > 0 && d.add(w, rest[0], limit) {
				rest = rest[1:]
			}
		}
	}
	return true
}

// room finds the worker with room for all members that is the first one of their
// key, or else the one with the most room for at least the first of them.
func (d *division) room(key uint64, members []member, limit int64) (worker int, ok bool) {
	layers := d.distinct(members)
	var first uint64
	// If they cost more than that by themselves, what they could share with what a
	// worker has is less than what that costs.
	if d.cost(len(members), layers) <= limit {
		for w := range d.n {
			weight := rendezvous(key, w)
			if (!ok || weight > first) && d.costs[w]+d.more(w, len(members), layers) <= limit {
				worker, first, ok = w, weight, true
			}
		}
	}
	if ok {
		return worker, true
	}
	for w := range d.n {
		weight := rendezvous(key, w)
		if ok && (d.costs[w] > d.costs[worker] || d.costs[w] == d.costs[worker] && weight <= first) {
			continue
		}
		if d.costs[w]+d.more(w, 1, members[0].layers) <= limit {
			worker, first, ok = w, weight, true
		}
	}
	return worker, ok
}

func (d *division) add(worker int, m member, limit int64) bool {
	cost := d.costs[worker] + d.more(worker, 1, m.layers)
	if cost > limit {
		return false
	}
	d.costs[worker] = cost
	for _, id := range m.layers {
		i := worker*len(d.sizes) + id
		d.has[i/64] |= 1 << (i % 64)
	}
	d.shards[worker] = append(d.shards[worker], m.index)
	return true
}

func hash(key string) uint64 {
	h := fnv.New64a()
	io.WriteString(h, key) //nolint:errcheck // it never fails
	return h.Sum64()
}

// rendezvous is the weight of a worker for a key: the one with the highest is the
// key's first. It is SplitMix64's number of the key, in the worker's place.
func rendezvous(key uint64, worker int) uint64 {
	x := key + uint64(worker+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

var shardForm = regexp.MustCompile(`^(\d{1,9})/([1-9]\d{0,8})$`)

// ParseShard parses INDEX/COUNT: which shard of how many is meant. The first has
// the index 0.
func ParseShard(s string) (index, count int, err error) {
	m := shardForm.FindStringSubmatch(s)
	if m == nil {
		return 0, 0, fmt.Errorf("shard %q is not INDEX/COUNT, such as 0/8", s)
	}
	index, _ = strconv.Atoi(m[1]) // digits, and few
	count, _ = strconv.Atoi(m[2])
	if index >= count {
		return 0, 0, fmt.Errorf("there is no shard %s: the indexes of %d go from 0 to %d", s, count, count-1)
	}
	return index, count, nil
}
