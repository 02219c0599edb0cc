package bulk

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// fleets makes lists of images as registries have them: of some suites, bases on
// these, packages on those, and apps. Of each there are some that many have.
type fleets struct{ *rand.Rand }

func newFleets(seed uint64) fleets { return fleets{rand.New(rand.NewPCG(seed, 1))} }

func layer(kind string, i int, atMost int64) Layer {
	return Layer{fmt.Sprintf("sha256:%s-%d", kind, i), rand.New(rand.NewPCG(uint64(i), uint64(atMost))).Int64N(atMost)}
}

func (r fleets) often(n int) int { return min(r.IntN(n), r.IntN(n)) }

func (r fleets) items(n int) []Item {
	items := make([]Item, n)
	suites, bases, packages := 1+r.IntN(4), 1+r.IntN(20), 1+r.IntN(100)
	for i := range items {
		base := r.often(bases)
		items[i] = Item{fmt.Sprintf("registry.example.com/app-%d:1.0", i), []Layer{
			layer("suite", base%suites, 50<<20),
			layer("base", base, 20<<20),
			layer("packages", base*100+r.often(packages), 100<<20),
			layer("app", i, 4<<20),
		}}
	}
	return items
}

// cost is that of items on one worker.
func cost(items []Item) int64 {
	cost := int64(perItem * len(items))
	seen := map[string]bool{}
	for _, item := range items {
		for _, l := range item.Layers {
			if !seen[l.Digest] {
				cost += l.Size
			}
			seen[l.Digest] = true
		}
	}
	return cost
}

// shares are the items of each shard.
func shares(items []Item, shards [][]int) [][]Item {
	of := make([][]Item, len(shards))
	for w, shard := range shards {
		for _, i := range shard {
			of[w] = append(of[w], items[i])
		}
	}
	return of
}

// workers are the indexes of the shards by item.
func workers(items []Item, n int) map[string]int {
	of := map[string]int{}
	for w, shard := range Shards(items, n) {
		for _, i := range shard {
			of[items[i].Name] = w
		}
	}
	return of
}

func TestShards(t *testing.T) {
	var read, byName int64 // by all workers, and by such that choose by names only
	var moved, stayed int  // when an item is added
	for seed := range uint64(300) {
		r := newFleets(seed)
		items := r.items(1 + r.IntN(500))
		n := 1 + r.IntN(20)
		shards := Shards(items, n)

		var all []int
		for _, shard := range shards {
			if !slices.IsSorted(shard) {
				t.Errorf("seed %d: a shard has the items %v", seed, shard)
			}
			all = append(all, shard...)
		}
		slices.Sort(all)
		if len(shards) != n || len(all) != len(items) || slices.ContainsFunc(all, func(i int) bool { return all[i] != i }) {
			t.Fatalf("seed %d: %d of %d items are in %d of %d shards", seed, len(all), len(items), len(shards), n)
		}

		fair, largest := float64(cost(items))/float64(n), int64(0)
		for _, item := range items {
			largest = max(largest, cost([]Item{item}))
		}
		for w, share := range shares(items, shards) {
			if c := cost(share); float64(c) > 1.25*(fair+float64(largest)) {
				t.Errorf("seed %d: worker %d of %d has %d, the fair share is %.0f, the largest item %d", seed, w, n, c, fair, largest)
			}
			read += cost(share)
		}
		named := make([][]int, n)
		for i, item := range items {
			w := int(hash(item.Name) % uint64(n))
			named[w] = append(named[w], i)
		}
		for _, share := range shares(items, named) {
			byName += cost(share)
		}

		before := workers(items, n)
		shuffled := slices.Clone(items)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for name, w := range workers(shuffled, n) {
			if w != before[name] {
				t.Errorf("seed %d: the worker of %s is %d, in another order %d", seed, name, before[name], w)
			}
		}
		more := append(shuffled, Item{"registry.example.com/new:1.0", append(slices.Clone(items[0].Layers[:2]), layer("app", len(items), 4<<20))})
		for name, w := range workers(more, n) {
			if before[name] == w {
				stayed++
			} else {
				moved++
			}
		}
	}
	if read > byName*7/10 {
		t.Errorf("workers read %d, by names only %d", read, byName)
	}
	if moved > stayed/20 {
		t.Errorf("when one item is added to a list, %d move and %d stay", moved, stayed)
	}
}

// TestShardsMeet: images on the same base meet, if that is fair.
func TestShardsMeet(t *testing.T) {
	const mega = 1 << 20
	on := func(base string, size int64, n int) []Item {
		var items []Item
		for i := range n {
			items = append(items, Item{fmt.Sprint(base, i), []Layer{{base, size}, {fmt.Sprint(base, i), 10}}})
		}
		return items
	}
	for _, tt := range []struct {
		name  string
		items []Item
		n     int
		reads map[string]int // how many workers read a base
	}{
		{"one worker", slices.Concat(on("a", 10*mega, 5), on("b", 10*mega, 5)), 1, map[string]int{"a": 1, "b": 1}},
		{"small groups", slices.Concat(on("a", 10*mega, 5), on("b", 10*mega, 5), on("c", 10*mega, 5), on("d", 10*mega, 5), on("e", 10*mega, 5), on("f", 10*mega, 5)), 2, map[string]int{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1}},
		{"a large group", slices.Concat(on("a", 10*mega, 100), on("b", 10*mega, 10)), 4, map[string]int{"a": 4, "b": 1}},
		{"images that cost nothing to read", on("a", 100*mega, 1000), 8, map[string]int{"a": 8}},
		{"few images", on("a", 100*mega, 2), 8, map[string]int{"a": 1}},
		{"nothing", nil, 3, map[string]int{}},
		{"no layers", []Item{{"a", nil}, {"b", nil}}, 3, map[string]int{}},
	} {
		reads := map[string]int{}
		for _, share := range shares(tt.items, Shards(tt.items, tt.n)) {
			seen := map[string]bool{}
			for _, item := range share {
				if len(item.Layers) > 0 && !seen[item.Layers[0].Digest] {
					seen[item.Layers[0].Digest] = true
					reads[item.Layers[0].Digest]++
				}
			}
		}
		if fmt.Sprint(reads) != fmt.Sprint(tt.reads) {
			t.Errorf("%s: bases are read by %v workers, want %v", tt.name, reads, tt.reads)
		}
	}
}

// TestShardsStable holds what workers of different versions have to agree about.
func TestShardsStable(t *testing.T) {
	var items []Item
	for i := range 20 {
		base := i * i % 3
		items = append(items, Item{fmt.Sprint(i), []Layer{{fmt.Sprintf("base %d", base), int64(5+base) << 20}, {fmt.Sprintf("app %d", i), 1 << 10}}})
	}
	got := fmt.Sprint(Shards(items, 3))
	if want := "[[0 3 6 9 12 15 18] [2 4 5 7 8 19] [1 10 11 13 14 16 17]]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseShard(t *testing.T) {
	for _, tt := range []struct {
		text         string
		index, count int
		problem      string
	}{
		{"0/8", 0, 8, ""},
		{"7/8", 7, 8, ""},
		{"0/1", 0, 1, ""},
		{"8/8", 0, 0, "the indexes of 8 go from 0 to 7"},
		{"0/0", 0, 0, "not INDEX/COUNT"},
		{"", 0, 0, "not INDEX/COUNT, such as 0/8"},
		{"3", 0, 0, "not INDEX/COUNT"},
		{"-1/8", 0, 0, "not INDEX/COUNT"},
		{"1 / 8", 0, 0, "not INDEX/COUNT"},
		{"0/99999999999", 0, 0, "not INDEX/COUNT"},
	} {
		index, count, err := ParseShard(tt.text)
		if index != tt.index || count != tt.count || (err == nil) != (tt.problem == "") || err != nil && !strings.Contains(err.Error(), tt.problem) {
			t.Errorf("%q: %d, %d, %v", tt.text, index, count, err)
		}
	}
}
