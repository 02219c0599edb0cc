package pep440

import "slices"

// Overlaps reports whether some version satisfies the specifiers of both sets.
// Which versions were ever released is not looked at.
func (s Specifiers) Overlaps(t Specifiers) bool {
	both := Specifiers{slices.Concat(s.all, t.all)}
	// The versions that satisfy a specifier make up a few stretches, which begin
	// and end at a version that it names. If there is one for all specifiers, it
	// is at such a version, or right before or behind one, or before or behind all.
	candidates := []Version{{epoch: zero, release: []number{zero}}, {epoch: zero, release: []number{"999999"}}}
	for _, sp := range both.all {
		v := sp.version
		if sp.op == "===" {
			parsed, err := Parse(sp.text)
			if err != nil {
				return len(both.all) == 1
			}
			v = parsed
		}
		candidates = append(candidates, v, v.behind(), v.next())
		if w, ok := v.before(); ok {
			candidates = append(candidates, w)
		}
	}
	return slices.ContainsFunc(candidates, both.Contains)
}

// behind is a release right behind v and what belongs to it: 1.5.0.1 behind
// 1.5.post1.
func (v Version) behind() Version {
	return Version{epoch: v.epoch, release: append(slices.Clone(v.release), "0", "1")}
}

// next is the release after all that begin as v's: 1.6 after 1.5.*.
func (v Version) next() Version {
	release := slices.Clone(v.release)
	last := len(release) - 1
	release[last] = release[last].plusOne()
	return Version{epoch: v.epoch, release: release}
}

// before is a release right before v, if there can be one: 1.4.999999 before 1.5.
func (v Version) before() (Version, bool) {
	release := slices.Clone(v.release)
	for i := len(release) - 1; i >= 0; i-- {
		if release[i] != zero {
			release = append(release[:i], release[i].minusOne(), "999999")
			return Version{epoch: v.epoch, release: release}, true
		}
	}
	return Version{}, false
}

// minusOne is the number before n, which is not zero.
func (n number) minusOne() number {
	digits := []byte(n)
	for i := len(digits) - 1; ; i-- {
		if digits[i] > '0' {
			digits[i]--
			return newNumber(string(digits))
		}
		digits[i] = '9'
	}
}

// plusOne is the number after n.
func (n number) plusOne() number {
	digits := []byte("0" + n)
	for i := len(digits) - 1; ; i-- {
		if digits[i] < '9' {
			digits[i]++
			return newNumber(string(digits))
		}
		digits[i] = '0'
	}
}
