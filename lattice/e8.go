package lattice

// nearestE8 finds the nearest point of E8 = D8 ∪ (D8 + ½) as the nearer of the two cosets' nearest points, the
// integer one when they are equally near (Conway & Sloane 1982). dst is doubled.
func nearestE8(dst []int32, x []float64) {
	var whole, half [8]int32
	var shifted [8]float64
	for j := range shifted {
		shifted[j] = x[j] - 0.5
	}
	nearestD(whole[:], x[:8])
	nearestD(half[:], shifted[:])
	var toWhole, toHalf float64
	for j := range whole {
		e := x[j] - float64(whole[j])
		toWhole += float64(e * e)
		e = shifted[j] - float64(half[j])
		toHalf += float64(e * e)
	}
	for j := range whole {
		if toWhole <= toHalf {
			dst[j] = 2 * whole[j]
		} else {
			dst[j] = 2*half[j] + 1
		}
	}
}

// nearestE832 is nearestE8 in the arithmetic of the group encoder; y is doubled like v, and so the error it returns
// is in squared integer units: 4 times that of the halved problem.
func nearestE832(v *[MaxDim]int32, y *[MaxDim]float32) float32 {
	var whole, half [MaxDim]int32
	var unshifted, shifted [MaxDim]float32
	for j := range unshifted {
		unshifted[j] = y[j] * 0.5
		shifted[j] = float32(y[j]*0.5) - 0.5
	}
	toWhole := nearestD32(&whole, &unshifted, 8)
	toHalf := nearestD32(&half, &shifted, 8)
	if toWhole <= toHalf {
		for j := range v {
			v[j] = 2 * whole[j]
		}
		return 4 * toWhole
	}
	for j := range v {
		v[j] = 2*half[j] + 1
	}
	return 4 * toHalf
}
